package peerbugs_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

const childProbe = "EVENKEEL_PROBE" // what a child process has to do: behaviour|implementation

// TestProbe is what a child process runs. In a bubble a hang is a report of a
// deadlock; and the process ends with the verdict, whatever a peer leaves running.
func TestProbe(t *testing.T) {
	name := os.Getenv(childProbe)
	if name == "" {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		fmt.Printf("VERDICT %s.\n", verdict(name))
		os.Exit(0)
	})
}

func verdict(name string) string {
	behaviour, impl, _ := strings.Cut(name, "|")
	for _, p := range flightProbes {
		for _, f := range flights {
			if p.behaviour == behaviour && f.name == impl {
				return p.run(f.make())
			}
		}
	}
	for _, p := range loaderProbes {
		for _, l := range loaders {
			if p.behaviour == behaviour && l.name == impl {
				return p.run(l.make())
			}
		}
	}
	return "unknown probe " + name
}

// judge runs a probe in a child process.
func judge(t *testing.T, behaviour, impl string) string {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProbe$", "-test.timeout=10s")
	cmd.Env = append(os.Environ(), childProbe+"="+behaviour+"|"+impl)
	out, err := cmd.CombinedOutput()
	if _, rest, ok := bytes.Cut(out, []byte("VERDICT ")); ok {
		v, _, _ := bytes.Cut(rest, []byte(".\n"))
		return string(v)
	}
	switch {
	case bytes.Contains(out, []byte("deadlock")), bytes.Contains(out, []byte("test timed out")):
		return "hangs"
	case err != nil:
		return "crashes the process"
	}
	return "no verdict"
}

func TestPeerBugs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/coalesce-peers.md")
	require.NoError(t, err)
	for _, m := range []string{matrix(t, flightProbes, flights), matrix(t, loaderProbes, loaders)} {
		t.Log("\n" + m)
		require.Contains(t, string(doc), m, "the page shows another matrix")
	}
}

// matrix runs every probe against every implementation and returns a table.
func matrix[T any](t *testing.T, probes []probe[T], impls []implementation[T]) string {
	var page strings.Builder
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

// Of a million calls for a hot key none receives a result that somebody had received
// before it asked.
func TestAMillionCallsReceiveNothingOld(t *testing.T) {
	for _, f := range flights[:4] { // the others are caches
		n := stale(f.make(), 200, 5000)
		t.Logf("%s: %d of 1000000", f.name, n)
		if f.name == "evenkeel" {
			require.Zero(t, n)
		}
	}
}
