package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The numbers of the first four ways are those of their seed. How often the outbox
// repeats also depends on leases, which are measured in real time.
func TestOnlyTheOutboxNeitherLosesNorInventsNorReorders(t *testing.T) {
	t.Parallel()
	s := newScript(4, 300)
	results, err := playAll(t.Context(), s)
	require.NoError(t, err)
	require.Len(t, results, 5)
	var got []verdict
	for _, r := range results {
		got = append(got, r.verdict)
	}
	require.Equal(t, []verdict{
		{committed: 276, lost: 2, disordered: 10},
		{committed: 275, invented: 23},
		{committed: 276, lost: 30, disordered: 7, repeated: 7},
		{committed: 276, disordered: 5, repeated: 7},
	}, got[:4])
	require.Positive(t, got[4].repeated, "drainers died")
	require.LessOrEqual(t, got[4].repeated, beforeCrash*s.drainerCrashes, "what they had given to the broker")
	got[4].repeated = 0
	require.Equal(t, verdict{committed: 276}, got[4])
}

func TestAScriptIsThatOfItsSeed(t *testing.T) {
	t.Parallel()
	require.Equal(t, newScript(5, 200), newScript(5, 200))
	require.NotEqual(t, newScript(5, 200), newScript(6, 200))
}

// Every request arrives once, and is ended by its last step, or by a crash.
func TestEveryRequestOfAScriptEnds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		s := newScript(seed, 300)
		next := map[int]what{}
		arrived, drained := 0, [drainers]int{}
		for _, m := range s.moments {
			switch m.what {
			case begins:
				require.NotContains(t, next, m.request.number)
				next[m.request.number] = commits
				arrived++
			case claims:
				drained[m.drainer]++
			case publishes:
				drained[m.drainer]--
			default:
				require.Equal(t, m.what, next[m.request.number], "request %d", m.request.number)
				next[m.request.number]++
				if m.crash {
					clear(next)
				}
				if m.what == sends || m.request.rollsBack {
					delete(next, m.request.number)
				}
			}
			require.LessOrEqual(t, len(next), atOnce)
			for _, n := range drained {
				require.True(t, n == 0 || n == 1, "a drainer claims and publishes in turns")
			}
		}
		require.Empty(t, next)
		require.Equal(t, 300, arrived)
	}
}

func TestTheBrokerIsJudgedByWhatCommitted(t *testing.T) {
	t.Parallel()
	committed := map[int]bool{1: true, 2: true, 3: true, 4: true}
	b := broker{got: []event{
		{Request: 1, Order: 1, Version: 1},
		{Request: 9, Order: 1, Version: 9}, // never committed, and moves nothing
		{Request: 3, Order: 1, Version: 3},
		{Request: 2, Order: 1, Version: 2}, // after 3
		{Request: 1, Order: 1, Version: 1}, // again, which is no disorder
	}}
	require.Equal(t, verdict{committed: 4, lost: 1, invented: 1, disordered: 1, repeated: 1}, b.judge(committed))
}

func TestTheTableIsPrinted(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-requests", "20", "-seed", "3"}, &out, &errs), errs.String())
	require.Empty(t, errs.String())
	require.True(t, strings.HasPrefix(out.String(), "20 requests change 20 orders; "), out.String())
	for _, w := range ways() {
		require.Contains(t, out.String(), w.name()+"\n")
		require.Contains(t, out.String(), w.lesson()+"\n")
	}
}

func TestHelpIsPrintedAndMistakesAreSaid(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-h"}, &out, &errs))
	require.Contains(t, out.String(), "Usage: go run ./examples/outbox [flags]\n")
	require.Contains(t, out.String(), "-requests")
	require.Empty(t, errs.String())
	for want, args := range map[string][]string{
		`outbox: unexpected argument "twice", see -h`:                  {"twice"},
		`outbox: -requests is 0, expected 1 to 100000`:                 {"-requests", "0"},
		`outbox: invalid value "x" for flag -seed: parse error`:        {"-seed", "x"},
		`outbox: flag provided but not defined: -orders`:               {"-orders", "3"},
		`outbox: invalid value "many" for flag -requests: parse error`: {"-requests", "many"},
		`outbox: -requests is 100001, expected 1 to 100000`:            {"-requests", "100001"},
	} {
		errs.Reset()
		require.Equal(t, 2, run(t.Context(), args, &out, &errs))
		require.Equal(t, want+"\n", errs.String())
	}
}

func TestItEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	require.Equal(t, 1, run(ctx, nil, &out, &errs))
	require.Contains(t, errs.String(), "outbox: send after the commit: ")
	require.Contains(t, errs.String(), "context canceled")
	require.Empty(t, out.String())
}
