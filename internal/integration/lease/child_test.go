// Package lease_test runs the leases of package coalesce on real servers.
package lease_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
)

// A child is another process: this test binary, started again. It becomes the
// holder of a key and says so; then it does what it is told, unless it is killed
// or stopped before.

const (
	childKind = "EVENKEEL_LEASE_CHILD" // which of children
	childArgs = "EVENKEEL_LEASE_ARGS"  // for it, separated by newlines; the last is the key

	workerKey = "worker" // instead of a key: see beWorker
)

// children open a participant in the child process.
var children = map[string]func(args []string) (coalescetest.Participant, error){
	"redis":         redisChild,
	"redis cluster": redisChild,
	"postgres":      sqlChild("postgres"),
	"mariadb":       sqlChild("mariadb"),
}

func TestMain(m *testing.M) {
	if kind := os.Getenv(childKind); kind != "" {
		if err := beChild(children[kind], strings.Split(os.Getenv(childArgs), "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// These tests wait for leases to end far more than they work. A flag on the
	// command line still wins.
	_ = flag.Set("test.parallel", "16")
	os.Exit(m.Run())
}

func beChild(open func([]string) (coalescetest.Participant, error), args []string) error {
	p, err := open(args[:len(args)-1])
	if err != nil {
		return err
	}
	key := args[len(args)-1]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // whatever happens to the parent
	defer cancel()
	if key == workerKey {
		return beWorker(ctx, p)
	}
	g, err := p.Acquire(ctx, key)
	if err != nil {
		return err
	}
	fmt.Println(g.Token())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch cmd, value, _ := strings.Cut(in.Text(), " "); cmd {
		case "put":
			fmt.Println(verdict(p.Put(ctx, key, g.Token(), []byte(value))))
		case "lost":
			select {
			case <-g.Lost():
				fmt.Println("lost")
			case <-ctx.Done():
				return ctx.Err()
			}
		case "release":
			fmt.Println(verdict(g.Release(ctx)))
		}
	}
	return nil
}

func verdict(err error) string {
	switch {
	case errors.Is(err, coalesce.ErrFenced):
		return "fenced"
	case err != nil:
		return err.Error()
	}
	return "ok"
}

type child struct {
	cmd   *exec.Cmd
	in    func(line string)
	out   *bufio.Scanner
	token coalesce.Token
}

// holder starts a child and waits until it holds the key.
func holder(t *testing.T, kind string, args ...string) *child {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childKind+"="+kind, childArgs+"="+strings.Join(args, "\n"))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{cmd: cmd, out: bufio.NewScanner(stdout), in: func(line string) { fmt.Fprintln(stdin, line) }}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	token, err := strconv.ParseUint(c.line(t), 10, 64)
	require.NoError(t, err)
	c.token = coalesce.Token(token)
	return c
}

func (c *child) line(t *testing.T) string {
	t.Helper()
	require.True(t, c.out.Scan(), "the child has ended")
	return c.out.Text()
}

func (c *child) ask(t *testing.T, line string) string {
	t.Helper()
	c.in(line)
	return c.line(t)
}

func (c *child) kill(t *testing.T)   { require.NoError(t, c.cmd.Process.Kill()) }
func (c *child) pause(t *testing.T)  { require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP)) }
func (c *child) resume(t *testing.T) { require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT)) }

// A killed holder is succeeded, by one process: however many wait, the work is
// done once more. Without an end of the lease they would wait until soon is over.
func killedHolderIsSucceeded(t *testing.T, c *child, key string, heirs ...coalescetest.Participant) {
	require.Equal(t, "ok", c.ask(t, "put half"))
	c.kill(t)
	type done struct {
		value string
		err   error
	}
	out := make(chan done, len(heirs))
	worked := make(chan coalesce.Token, len(heirs))
	ctx := soon(t)
	for _, p := range heirs {
		go func() {
			v, err := coalesce.Lead(ctx, p, key,
				func(ctx context.Context) (string, bool, error) {
					v, _, err := p.Get(ctx, key)
					return string(v), string(v) == "whole", err
				},
				func(ctx context.Context, token coalesce.Token) (string, error) {
					worked <- token
					return "whole", p.Put(ctx, key, token, []byte("whole"))
				})
			out <- done{v, err}
		}()
	}
	for range heirs {
		require.Equal(t, done{"whole", nil}, <-out)
	}
	require.Len(t, worked, 1, "executions after the killed one")
	require.Greater(t, <-worked, c.token)
}

// A holder that was stopped for longer than its time to live goes on, and what
// it then brings is refused.
func stoppedHolderIsFenced(t *testing.T, c *child, key string, p coalescetest.Participant) {
	c.pause(t)
	require.NoError(t, p.Wait(t.Context(), key))
	g, err := p.Acquire(t.Context(), key)
	require.NoError(t, err)
	require.Greater(t, g.Token(), c.token)
	require.NoError(t, p.Put(t.Context(), key, g.Token(), []byte("of the successor")))
	c.resume(t)
	require.Equal(t, "fenced", c.ask(t, "put of the late one"))
	require.Equal(t, "lost", c.ask(t, "lost"))
	require.Equal(t, "fenced", c.ask(t, "release"))
	v, found, err := p.Get(t.Context(), key)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "of the successor", string(v))
	require.NoError(t, p.Put(t.Context(), key, g.Token(), []byte("again")), "the late one's release changed nothing")
	require.NoError(t, g.Release(t.Context()))
}
