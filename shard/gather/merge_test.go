package gather_test

import (
	"cmp"
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// row is ordered by key alone; stream and pos tell equal keys apart.
type row struct{ key, stream, pos int }

func byKey(a, b row) int { return cmp.Compare(a.key, b.key) }

// anyStreams draws ordered streams with many equal keys, some of them empty and
// some longer than the largest batch.
func anyStreams() *rapid.Generator[[][]row] {
	return rapid.Custom(func(t *rapid.T) [][]row {
		streams := make([][]row, rapid.IntRange(0, 9).Draw(t, "streams"))
		for i := range streams {
			keys := rapid.SliceOfN(rapid.IntRange(0, 20), 0, rapid.SampledFrom([]int{3, 200}).Draw(t, "max")).Draw(t, "keys")
			slices.Sort(keys)
			for pos, k := range keys {
				streams[i] = append(streams[i], row{k, i, pos})
			}
		}
		return streams
	})
}

// sorted is the model of Merge: everything in one list, sorted stably.
func sorted(streams [][]row) []row {
	all := slices.Concat(streams...)
	slices.SortStableFunc(all, byKey)
	return all
}

func seqs(streams [][]row) (in []iter.Seq2[row, error]) {
	for _, s := range streams {
		in = append(in, gather.Rows(s))
	}
	return in
}

func collect(seq iter.Seq2[row, error]) (rows []row, err error) {
	for r, e := range seq {
		if e != nil {
			return rows, e
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func TestMergeEqualsAStableSort(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		streams := anyStreams().Draw(t, "streams")
		merged := gather.Merge(byKey, seqs(streams)...)
		for range 2 { // it may be iterated again
			rows, err := collect(merged)
			require.NoError(t, err)
			require.Equal(t, sorted(streams), rows)
		}
	})
}

// failing yields rows and then err.
func failing(rows []row, err error) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
		yield(row{}, err)
	}
}

func TestMergeStopsRightAfterTheRowBeforeAnError(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	rapid.Check(t, func(t *rapid.T) {
		streams := append(anyStreams().Draw(t, "streams"), []row{})
		torn := rapid.IntRange(0, len(streams)-1).Draw(t, "torn")
		in := seqs(streams)
		in[torn] = failing(streams[torn], boom)

		rows, err := collect(gather.Merge(byKey, in...))
		require.ErrorIs(t, err, boom)
		all := sorted(streams)
		last := slices.IndexFunc(all, func(r row) bool { return r.stream == torn && r.pos == len(streams[torn])-1 })
		require.True(t, slices.Equal(all[:last+1], rows), "%v", rows) // last is -1 for an empty stream
	})
}

func TestMergeRefusesAnUnorderedStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		streams := append(anyStreams().Draw(t, "streams"), []row{})
		bad := rapid.IntRange(0, len(streams)-1).Draw(t, "bad")
		at := rapid.IntRange(0, len(streams[bad])).Draw(t, "at")
		// 30 steps up, and what follows steps down: to 0 at the latest.
		streams[bad] = slices.Insert(slices.Clone(streams[bad]), at, row{30, bad, -1}, row{0, bad, -2})

		rows, err := collect(gather.Merge(byKey, seqs(streams)...))
		require.ErrorIs(t, err, gather.ErrUnordered)
		require.True(t, slices.IsSortedFunc(rows, byKey), "what came before is in order")
		require.NotContains(t, rows, row{0, bad, -2})
	})
}

func TestMergeYieldsNothingAfterAnError(t *testing.T) {
	t.Parallel()
	first, second := errors.New("first"), errors.New("second")
	for k := range 4 { // the streams that fail are not the only ones
		in := []iter.Seq2[row, error]{failing(nil, first), failing(nil, second)}
		for range k {
			in = append(in, gather.Rows([]row{{key: 1}}))
		}
		var all []error
		for _, err := range gather.Merge(byKey, in...) {
			all = append(all, err)
		}
		require.Equal(t, []error{first}, all)
	}
}

func TestMergeReadsAheadNoMoreThanABatch(t *testing.T) {
	t.Parallel()
	read, ended, yielded := 0, 0, 0
	for range gather.Merge(byKey, counted(gather.Rows(make([]row, 1000)), &read, &ended)) {
		yielded++
		require.LessOrEqual(t, read, yielded+63)
	}
	require.Equal(t, 1000, yielded)
}

// counted counts the rows that are read from a stream and the times it ended.
func counted(s iter.Seq2[row, error], read, ended *int) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		defer func() { *ended++ }()
		for r, err := range s {
			*read++
			if !yield(r, err) {
				return
			}
		}
	}
}

func TestMergeReadsAheadInProportionAndReleasesOnBreak(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		streams := anyStreams().Draw(t, "streams")
		limit := rapid.IntRange(1, 300).Draw(t, "limit")
		read, ended := make([]int, len(streams)), 0
		in := seqs(streams)
		for i := range in {
			in[i] = counted(in[i], &read[i], &ended)
		}
		yielded := make([]int, len(streams))
		for r, err := range gather.Merge(byKey, in...) {
			require.NoError(t, err)
			yielded[r.stream]++
			if limit--; limit == 0 {
				break
			}
		}
		require.Equal(t, len(streams), ended, "every stream was released")
		for i := range streams {
			require.LessOrEqual(t, read[i], max(1, min(2*yielded[i]+1, yielded[i]+64)), "stream %d yielded %d", i, yielded[i])
		}
	})
}

func TestMergeReleasesWhenTheLoopPanics(t *testing.T) {
	t.Parallel()
	read, ended := 0, 0
	require.PanicsWithValue(t, "loop", func() {
		for range gather.Merge(byKey, counted(gather.Rows([]row{{}, {}}), &read, &ended)) {
			panic("loop")
		}
	})
	require.Equal(t, 1, ended)
}

func TestMergeReleasesTheOthersWhenAStreamPanicsAsItEnds(t *testing.T) {
	t.Parallel()
	read, ended := 0, 0
	stubborn := func(yield func(row, error) bool) {
		defer func() { panic("close") }()
		yield(row{}, nil)
	}
	require.PanicsWithValue(t, "close", func() {
		for range gather.Merge(byKey, counted(gather.Rows([]row{{}, {}}), &read, &ended), stubborn, counted(gather.Rows([]row{{}, {}}), &read, &ended)) {
			break
		}
	})
	require.Equal(t, 2, ended)
}

func TestMergePassesOnAPanicOfAStream(t *testing.T) {
	t.Parallel()
	read, ended := 0, 0
	require.PanicsWithValue(t, "stream", func() {
		_, _ = collect(gather.Merge(byKey,
			counted(gather.Rows([]row{{}, {}}), &read, &ended),
			func(func(row, error) bool) { panic("stream") }))
	})
	require.Equal(t, 1, ended)
}

// inBatches cuts rows into batches of drawn sizes, all of which fill one buffer, and ends in
// err, with the last rows or on its own.
func inBatches(t *rapid.T, rows []row, err error) func() ([]row, error) {
	buf := make([]row, 0, 100)
	size := rapid.IntRange(1, 100).Draw(t, "size")
	together := rapid.Bool().Draw(t, "rows and error together")
	ended := false
	return func() ([]row, error) {
		if ended {
			panic("called after its end")
		}
		clear(buf[:cap(buf)]) // nothing of the last batch is still needed
		buf = append(buf[:0], rows[:min(size, len(rows))]...)
		rows = rows[len(buf):]
		if len(buf) > 0 && !(together && len(rows) == 0 && err != nil) {
			return buf, nil
		}
		ended = true
		return buf, err
	}
}

func TestMergeBatchesEqualsMerge(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	rapid.Check(t, func(t *rapid.T) {
		streams := anyStreams().Draw(t, "streams")
		torn := rapid.IntRange(-1, len(streams)-1).Draw(t, "torn")
		in, batched := seqs(streams), make([]func() ([]row, error), len(streams))
		for i := range streams {
			var err error
			if i == torn {
				err = boom
				in[i] = failing(streams[i], boom)
			}
			batched[i] = inBatches(t, streams[i], err)
		}
		want, wantErr := collect(gather.Merge(byKey, in...))
		rows, err := collect(gather.MergeBatches(byKey, batched...))
		require.Equal(t, want, rows)
		require.Equal(t, wantErr, err)
	})
}

// Where in a batch the step back is makes no difference, nor how often its stream has won.
func TestMergeBatchesRefusesAnUnorderedStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		streams := append(anyStreams().Draw(t, "streams"), []row{})
		bad := rapid.IntRange(0, len(streams)-1).Draw(t, "bad")
		at := rapid.IntRange(0, len(streams[bad])).Draw(t, "at")
		streams[bad] = slices.Insert(slices.Clone(streams[bad]), at, row{30, bad, -1}, row{rapid.IntRange(0, 29).Draw(t, "to"), bad, -2})
		in := make([]func() ([]row, error), len(streams))
		for i := range streams {
			in[i] = inBatches(t, streams[i], nil)
		}
		rows, err := collect(gather.MergeBatches(byKey, in...))
		require.ErrorIs(t, err, gather.ErrUnordered)
		require.True(t, slices.IsSortedFunc(rows, byKey), "what came before is in order")
	})
}

// A row costs no allocation.
func TestMergeBatchesAllocatesNothingARow(t *testing.T) {
	merge := func(rows int) float64 {
		buf := make([]row, 100)
		return testing.AllocsPerRun(10, func() {
			in := make([]func() ([]row, error), 4)
			for i := range in {
				left := rows
				in[i] = func() ([]row, error) {
					n := min(left, len(buf))
					left -= n
					return buf[:n], nil
				}
			}
			n := 0
			for _, err := range gather.MergeBatches(byKey, in...) {
				if err == nil {
					n++
				}
			}
			if n != 4*rows {
				panic(n)
			}
		})
	}
	require.Equal(t, merge(1), merge(10_000))
}
