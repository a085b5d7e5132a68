package topo_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// A child is this test binary, started again as another process. It ends when its
// standard input does, so that it does not outlive the test, however that ends.

const (
	childKind = "EVENKEEL_TOPO_CHILD" // which of children
	childArgs = "EVENKEEL_TOPO_ARGS"  // for it, separated by newlines
)

var children = map[string]func(args []string) error{
	"etcd":          etcdServer,
	"publish file":  publisher(storeInFile),
	"publish etcd":  publisher(storeInEtcd),
	"publish table": publisher(storeInTable),
}

func TestMain(m *testing.M) {
	if kind := os.Getenv(childKind); kind != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(3)
		}()
		if err := children[kind](strings.Split(os.Getenv(childArgs), "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// These tests wait for servers more than they work. A flag on the command line
	// still wins.
	_ = flag.Set("test.parallel", "8")
	os.Exit(m.Run())
}

// child is another process.
type child struct {
	cmd *exec.Cmd
	out *bufio.Scanner
}

func startChild(t testing.TB, kind string, args ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childKind+"="+kind, childArgs+"="+strings.Join(args, "\n"))
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{cmd: cmd, out: bufio.NewScanner(stdout)}
	t.Cleanup(c.kill)
	return c
}

// kill is kill -9. It waits for the end.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	_ = c.cmd.Wait()
}

func (c *child) line(t testing.TB) string {
	t.Helper()
	require.True(t, c.out.Scan(), "the child has ended")
	return c.out.Text()
}

// publisher publishes the next map again and again, and says each epoch that Publish has
// acknowledged.
func publisher(open func(args []string) (topo.Store, error)) func([]string) error {
	return func(args []string) error {
		s, err := open(args)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience) // whatever happens to the parent
		defer cancel()
		for {
			m, err := s.Load(ctx)
			if err != nil {
				return err
			}
			first := m.Lookup(0)
			next, err := m.Move(first.Name, fmt.Sprint("of process ", os.Getpid(), ", epoch ", m.Epoch()+1))
			if err != nil {
				return err
			}
			switch err := s.Publish(ctx, next); {
			case err == nil:
				fmt.Println(next.Epoch())
			case !errors.Is(err, shard.ErrSplitBrain) && !errors.Is(err, shard.ErrStaleMap):
				return err
			}
		}
	}
}
