package lease_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
)

// What a worker goes through, and how many of them are killed.
const (
	workKeys  = 40
	workKills = 3
)

// beWorker leads for each key in turn, and says what it does. A line is one
// write, which a kill cannot cut in two.
func beWorker(ctx context.Context, p coalescetest.Participant) error {
	for i := range workKeys {
		key := fmt.Sprint("work ", i)
		value, err := coalesce.Lead(ctx, p, key,
			func(ctx context.Context) ([]byte, bool, error) { return p.Get(ctx, key) },
			func(ctx context.Context, token coalesce.Token) ([]byte, error) {
				value := fmt.Sprintf("%d/%d", os.Getpid(), token)
				fmt.Println("start", i, value)
				<-time.After(rand.N(10 * time.Millisecond))
				return []byte(value), p.Put(ctx, key, token, []byte(value))
			})
		if err != nil {
			return err
		}
		fmt.Println("done", i, string(value))
	}
	return nil
}

// A worker is a child that goes through all keys.
type worker struct {
	cmd    *exec.Cmd
	killed bool
	ended  chan struct{} // when all lines have been read
}

// killedAtRandom runs three workers, kills and replaces some, and counts: a key
// is worked on once, and once more for each worker that was killed at it.
func killedAtRandom(t *testing.T, p coalescetest.Participant, kind string, args ...string) {
	var mu sync.Mutex
	starts := map[string]map[string]*worker{} // by key and value
	dones := map[string][]string{}            // by key
	started := make(chan *worker, 10_000)
	launch := func() *worker {
		w := &worker{cmd: exec.CommandContext(t.Context(), os.Args[0]), ended: make(chan struct{})}
		w.cmd.Env = append(os.Environ(), childKind+"="+kind, childArgs+"="+strings.Join(append(args, workerKey), "\n"))
		w.cmd.Stderr = os.Stderr
		stdout, err := w.cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, w.cmd.Start())
		go func() {
			defer close(w.ended)
			for in := bufio.NewScanner(stdout); in.Scan(); {
				f := strings.Fields(in.Text())
				mu.Lock()
				if f[0] == "done" {
					dones[f[1]] = append(dones[f[1]], f[2])
				} else {
					if starts[f[1]] == nil {
						starts[f[1]] = map[string]*worker{}
					}
					starts[f[1]][f[2]] = w
					started <- w
				}
				mu.Unlock()
			}
		}()
		t.Cleanup(func() { _ = w.cmd.Process.Kill(); <-w.ended; _ = w.cmd.Wait() })
		return w
	}

	workers := []*worker{launch(), launch(), launch()}
	limit := time.After(2 * patience)
	for kills := 0; kills < workKills; {
		var w *worker // one that is, most likely, at work now
		for range 1 + rand.IntN(6) {
			select {
			case w = <-started:
			case <-limit:
				t.Fatal("the workers get nowhere")
			}
		}
		if i := slices.Index(workers, w); i >= 0 {
			_ = w.cmd.Process.Kill()
			w.killed = true
			workers[i] = launch()
			kills++
		}
	}
	for _, w := range workers {
		select {
		case <-w.ended:
		case <-limit:
			t.Fatal("the workers do not end")
		}
		require.NoError(t, w.cmd.Wait())
	}

	mu.Lock()
	defer mu.Unlock()
	executions := 0
	for i := range workKeys {
		stored, found, err := p.Get(soon(t), fmt.Sprint("work ", i))
		require.NoError(t, err)
		require.True(t, found)
		key := fmt.Sprint(i)
		require.GreaterOrEqual(t, len(dones[key]), len(workers))
		for _, value := range dones[key] {
			require.Equal(t, string(stored), value, "all have one value of key %d", i)
		}
		require.Contains(t, starts[key], string(stored))
		for value, w := range starts[key] {
			require.True(t, value == string(stored) || w.killed, "key %d was worked on by %s, and nobody was killed at it", i, value)
		}
		executions += len(starts[key])
	}
	t.Logf("%d executions for %d keys and %d kills", executions, workKeys, workKills)
}
