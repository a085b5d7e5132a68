package peerbugs_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

const childProbe = "EVENKEEL_PROBE" // what a child process has to do: behaviour|implementation

// TestProbe is what a child process runs. In a bubble the clock is virtual, so that
// even a hang takes no time; and the process ends with the verdict, whatever a peer
// leaves running.
func TestProbe(t *testing.T) {
	name := os.Getenv(childProbe)
	if name == "" {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		fmt.Printf("VERDICT %s.\n", verdict(name))
		os.Exit(1) // with 0, go test would complain of it at length
	})
}

func verdict(name string) (v string) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case hang:
			v = "hangs"
		default:
			panic(p)
		}
	}()
	behaviour, impl, _ := strings.Cut(name, "|")
	for _, run := range []func() (string, bool){
		func() (string, bool) { return find(flightProbes, flights, behaviour, impl) },
		func() (string, bool) { return find(loaderProbes, loaders, behaviour, impl) },
		func() (string, bool) { return find(cacheProbes, caches, behaviour, impl) },
	} {
		if v, ok := run(); ok {
			return v
		}
	}
	return "unknown probe " + name
}

func find[T any](probes []probe[T], impls []implementation[T], behaviour, name string) (string, bool) {
	for _, p := range probes {
		for _, impl := range impls {
			if p.behaviour == behaviour && impl.name == name {
				return p.run(impl.make()), true
			}
		}
	}
	return "", false
}

// judge runs a probe in a child process.
func judge(t *testing.T, behaviour, impl string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestProbe$")
	cmd.Env = append(os.Environ(), childProbe+"="+behaviour+"|"+impl)
	out, err := cmd.CombinedOutput()
	if _, rest, ok := bytes.Cut(out, []byte("VERDICT ")); ok {
		v, _, _ := bytes.Cut(rest, []byte(".\n"))
		return string(v)
	}
	switch {
	case bytes.Contains(out, []byte("all goroutines in bubble are blocked")), ctx.Err() != nil:
		return "hangs"
	case err != nil:
		return "crashes the process"
	}
	return "no verdict"
}

// The page has the verdicts, of this library and of its peers, line by line. Those of
// this library are all right.
func TestPeerBugs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/coalesce-peers.md")
	require.NoError(t, err)
	for _, m := range []string{matrix(t, flightProbes, flights), matrix(t, loaderProbes, loaders), matrix(t, cacheProbes, caches)} {
		t.Log("\n" + m)
		for line := range strings.Lines(m) {
			if !bytes.Contains(doc, []byte("\n"+line)) {
				t.Errorf("docs/coalesce-peers.md does not have the line\n%s", line)
			}
		}
		if !bytes.Contains(doc, []byte("\n\n"+m+"\n")) {
			t.Error("docs/coalesce-peers.md has another table")
		}
	}
}

// matrix runs every probe against every implementation and returns a table.
func matrix[T any](t *testing.T, probes []probe[T], impls []implementation[T]) string {
	verdicts := make([][]string, len(probes))
	var all sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, p := range probes {
		verdicts[i] = make([]string, len(impls))
		for j, impl := range impls {
			all.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				verdicts[i][j] = judge(t, p.behaviour, impl.name)
			})
		}
	}
	all.Wait()

	var page strings.Builder
	page.WriteString("| |")
	for _, impl := range impls {
		page.WriteString(" " + impl.name + " |")
	}
	page.WriteString("\n|---|" + strings.Repeat("---|", len(impls)) + "\n")
	for i, p := range probes {
		page.WriteString("| " + p.behaviour + " |")
		for j, v := range verdicts[i] {
			if impls[j].name == "evenkeel" && v != right {
				t.Errorf("evenkeel: %s: %s", p.behaviour, v)
			}
			page.WriteString(" " + strings.Replace(v, right, "✓", 1) + " |")
		}
		page.WriteString("\n")
	}
	return page.String()
}

const callers = 200

// callsEach makes a million calls of all callers.
func callsEach() int {
	if testing.Short() {
		return 500
	}
	return 5000
}

// Of a million calls for a hot key none receives a result that somebody had received
// before it asked. The caches are slow at that, and get a tenth of the calls.
func TestAMillionCallsReceiveNothingOld(t *testing.T) {
	for _, f := range flights {
		calls := callsEach()
		if f.make().forget == nil {
			calls /= 10
		}
		received, returned := stale(f.make(), callers, calls, nil)
		t.Logf("%s: of %d results %d had been received before the call, and of %d the work had returned", f.name, callers*calls, received, returned)
		if f.name == "evenkeel" {
			require.Zero(t, received)
		}
	}
}

// Nor does one receive the result of a flight that had ended, as Trace.Done tells.
func TestAMillionCallsJoinNothingThatHasEnded(t *testing.T) {
	var ended atomic.Int64
	g := coalesce.Group[string, int]{Trace: &coalesce.Trace[string]{
		Done: func(_ context.Context, _ string, l coalesce.Landing) { raise(&ended, int64(l.Err.(execution))) },
	}}
	_, old := stale(flight{do: g.Do}, callers, callsEach(), &ended)
	require.Zero(t, old)
	s := g.Stats()
	require.EqualValues(t, callers*callsEach(), s.Executions+s.Joined)
	t.Logf("%d executions", s.Executions)
}
