package gather_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// fate is what a node does when it is called: after a time it answers or fails.
type fate struct {
	node   string
	shards int
	after  time.Duration
	fails  bool
}

// outcome is what the model expects of a scatter.
type outcome struct {
	results, failed []string // nodes
	answered        int
	ok              bool
	took            time.Duration
}

// judge plays the fates in the order of their times, as the policy reads: until too many
// have failed for what is needed, or a quorum has answered.
func judge(fates []fate, need int, quorum bool) (o outcome) {
	asked := 0
	for _, f := range fates {
		asked += f.shards
	}
	byTime := slices.Clone(fates)
	slices.SortFunc(byTime, func(a, b fate) int { return cmp.Compare(a.after, b.after) })
	failed := 0
	for _, f := range byTime {
		o.took = f.after
		if f.fails {
			o.failed = append(o.failed, f.node)
			failed += f.shards
		} else {
			o.results = append(o.results, f.node)
			o.answered += f.shards
		}
		if asked-failed < need || quorum && o.answered >= need {
			break
		}
	}
	o.ok = o.answered >= need
	return o
}

func TestScatterNodesDoesWhatItsPolicySays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			fates := make([]fate, rapid.IntRange(1, 6).Draw(t, "nodes"))
			order := rapid.Permutation(slices.Collect(rangeOf(len(fates)))).Draw(t, "order")
			var shards []shard.Shard
			for i := range fates {
				fates[i] = fate{
					node: fmt.Sprint(i), shards: rapid.IntRange(1, 4).Draw(t, "shards"),
					after: time.Duration(1+order[i]) * time.Second, fails: rapid.Bool().Draw(t, "fails"),
				}
				for range fates[i].shards {
					shards = append(shards, shard.Shard{Node: fates[i].node})
				}
			}
			ranges, err := shard.EvenRanges(len(shards))
			require.NoError(t, err)
			for i := range shards {
				shards[i].Range = ranges[i]
			}
			m, err := shard.NewMap(1, shards...)
			require.NoError(t, err)

			need := rapid.IntRange(1, len(shards)).Draw(t, "need")
			quorum := rapid.Bool().Draw(t, "quorum")
			o := gather.Options{MinFraction: float64(need) / float64(len(shards))}
			if quorum {
				o = gather.Options{Quorum: need}
			}
			if rapid.Bool().Draw(t, "bulkhead") {
				o.Bulkhead = &gather.Bulkhead{}
			}
			if rapid.Bool().Draw(t, "hedge") {
				o.Hedge = &gather.Hedge{After: time.Hour}
			}
			want := judge(fates, need, quorum)
			started := time.Now()
			g, err := gather.ScatterNodes(t.Context(), m.ByNode(), func(ctx context.Context, node string, _ []*shard.Shard) (int, error) {
				f := fates[slices.IndexFunc(fates, func(f fate) bool { return f.node == node })]
				select {
				case <-ctx.Done():
					return 0, ctx.Err()
				case <-time.After(f.after):
				}
				if f.fails {
					return 0, fmt.Errorf("node %s: %w", node, errBoom)
				}
				return f.shards, nil
			}, o)
			require.Equal(t, want.took, time.Since(started))
			check(t, m, want, g, err)
			if o.Bulkhead != nil {
				require.Empty(t, o.Bulkhead.Stats())
			}
		})
	})
}

func rangeOf(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func check(t require.TestingT, m *shard.Map, want outcome, g gather.GatheredNodes[int], err error) {
	var results, failed []string
	for _, r := range g.Results {
		results = append(results, r.Node)
	}
	for _, f := range g.Failed {
		if !slices.Contains(failed, f.Shard.Node) {
			failed = append(failed, f.Shard.Node)
		}
		require.ErrorIs(t, f, errBoom)
	}
	slices.Sort(want.results)
	slices.Sort(want.failed)
	require.Equal(t, want.results, results)
	require.Equal(t, want.failed, failed)
	for s := range m.All() {
		missing := slices.ContainsFunc(g.Missing, func(r shard.Range) bool { return r.Covers(s.Range) })
		require.Equal(t, !slices.Contains(results, s.Node), missing)
	}
	if want.ok {
		require.NoError(t, err)
		return
	}
	partial, ok := errors.AsType[*gather.PartialError](err)
	require.True(t, ok)
	require.Equal(t, gather.PartialError{Failed: g.Failed, Missing: g.Missing, Asked: m.Len(), Answered: want.answered}, *partial)
	require.NotErrorIs(t, err, context.Canceled)
}

func TestScatterQuorumEndsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		g, err := gather.Scatter(t.Context(), evenMap(t, 5).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
			select {
			case <-time.After(time.Duration(1+index(s)) * time.Second):
				if s.Node == "0" {
					return 0, errBoom
				}
				return index(s), nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}, gather.Options{Quorum: 2})
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, time.Since(started))
		require.Equal(t, []int{1, 2}, []int{g.Results[0].Value, g.Results[1].Value})
		require.Len(t, g.Failed, 1, "the failure, and not those that were ended")
		require.Equal(t, []string{"0", "3", "4"}, missingShards(evenMap(t, 5), g.Missing))
	})
}

func TestScatterQuorumFailsAsSoonAsItCannotBeReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, err := gather.Scatter(t.Context(), evenMap(t, 5).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
			if index(s) < 2 {
				return 0, errBoom
			}
			<-ctx.Done()
			return 0, ctx.Err()
		}, gather.Options{Quorum: 4})
		require.EqualError(t, err, "gather: 0 of 5 shards answered: shard -33: boom; shard 33-66: boom")
		require.NotErrorIs(t, err, context.Canceled)
	})
}

func TestScatterRefusesAQuorumThatCannotBe(t *testing.T) {
	t.Parallel()
	never := func(context.Context, *shard.Shard) (int, error) { panic("called") }
	for want, o := range map[string]gather.Options{
		"gather: Options.Quorum is 6, expected at most the number of shards that are asked, 5": {Quorum: 6},
		"gather: Options.Quorum is -1, expected 0 or more":                                     {Quorum: -1},
		"gather: Options.Quorum is 2 and Options.MinFraction 0.5, expected one":                {Quorum: 2, MinFraction: 0.5},
		"gather: Options.Limit is 3, expected 0: only a Stream has a limit":                    {Limit: 3},
		"gather: Hedge.After is 0s, expected more than 0":                                      {Hedge: &gather.Hedge{}},
		"gather: Hedge.Budget is 1.5, expected 0 to 1":                                         {Hedge: &gather.Hedge{After: 1, Budget: 1.5}},
		"gather: Hedge.Budget is -1, expected 0 to 1":                                          {Hedge: &gather.Hedge{After: 1, Budget: -1}},
		"gather: Hedge.Budget is NaN, expected 0 to 1":                                         {Hedge: &gather.Hedge{After: 1, Budget: math.NaN()}},
		"gather: Bulkhead.PerNode is -2, expected 0 or more":                                   {Bulkhead: &gather.Bulkhead{PerNode: -2}},
	} {
		_, err := gather.Scatter(t.Context(), evenMap(t, 5).All(), never, o)
		require.ErrorContains(t, err, want)
	}
	_, err := gather.Scatter(t.Context(), slices.Values([]*shard.Shard{nil}), never, gather.Options{})
	require.EqualError(t, err, "gather: shard number 0 is nil")
}

// What a scatter reports are causes: errors.Is finds what failed, and no cancellation
// that followed from it.
func TestScatterReportsCauses(t *testing.T) {
	t.Parallel()
	deadline := func(ctx context.Context) (context.Context, func()) {
		return context.WithTimeout(ctx, time.Minute)
	}
	cause := errors.New("caller gave up")
	for name, c := range map[string]struct {
		end   func(context.Context) (context.Context, func())
		first func(context.Context) error // of shard 0; the others wait for their context
		o     gather.Options
		is    []error
		not   []error
	}{
		"a failure":           {first: func(context.Context) error { return errBoom }, is: []error{errBoom}, not: []error{context.Canceled, context.DeadlineExceeded}},
		"a failure, tolerant": {first: func(context.Context) error { return errBoom }, o: gather.Options{MinFraction: 0.5, ShardTimeout: time.Second}, is: []error{errBoom, context.DeadlineExceeded}, not: []error{context.Canceled}},
		"its own cancel":      {first: func(context.Context) error { return context.Canceled }, is: []error{context.Canceled}},
		"a shard's timeout":   {o: gather.Options{ShardTimeout: time.Second}, is: []error{context.DeadlineExceeded}, not: []error{context.Canceled}},
		"the caller's":        {end: deadline, is: []error{context.DeadlineExceeded}, not: []error{context.Canceled}},
		"the caller's cause": {end: func(ctx context.Context) (context.Context, func()) {
			return context.WithTimeoutCause(ctx, time.Minute, cause)
		}, o: gather.Options{Concurrency: 1, MinFraction: 0.5}, is: []error{context.DeadlineExceeded, cause}, not: []error{context.Canceled}},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := t.Context(), func() {}
			if c.end != nil {
				ctx, cancel = c.end(ctx)
			}
			defer cancel()
			_, err := gather.Scatter(ctx, evenMap(t, 4).All(), func(ctx context.Context, s *shard.Shard) (int, error) {
				if s.Node == "0" && c.first != nil {
					return 0, c.first(ctx)
				}
				<-ctx.Done()
				return 0, ctx.Err()
			}, c.o)
			for _, target := range c.is {
				require.ErrorIs(t, err, target, name)
			}
			for _, target := range c.not {
				require.NotErrorIs(t, err, target, name)
			}
		})
	}
}
