package peerbugs_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
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
	// What takes a race to show does not depend on the machine.
	cmd.Env = append(os.Environ(), childProbe+"="+behaviour+"|"+impl, "GOMAXPROCS=4")
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

func ours(implementation string) bool { return strings.HasPrefix(implementation, "evenkeel") }

// meant are verdicts on this library that are no ticks, and as documented.
var meant = map[string]string{
	deafWork + "|evenkeel Group": "5 at once",
	deafWork + "|evenkeel Cache": "5 at once",
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
			cell := p.behaviour + "|" + impls[j].name
			if ours(impls[j].name) && v != right && v != inapplicable && v != meant[cell] {
				t.Errorf("%s: %s", cell, v)
			}
			page.WriteString(" " + strings.Replace(v, right, "✓", 1) + " |")
		}
		page.WriteString("\n")
	}
	return page.String()
}
