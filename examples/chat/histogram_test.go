package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQuantilesAreRightToATenth(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []time.Duration
	for range 5000 {
		d := time.Duration(rng.ExpFloat64() * float64(5*time.Millisecond))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.99, 1} {
		exact := max(all[int(q*float64(len(all)-1))], 2*time.Microsecond)
		require.InEpsilon(t, exact, h.snapshot().quantile(q), 0.12, "%v", q)
	}
	require.Zero(t, counts{}.quantile(0.5))

	before := h.snapshot()
	h.add(time.Second)
	require.InEpsilon(t, time.Second, h.snapshot().minus(before).quantile(0.5), 0.11)
	h.add(time.Hour) // past the last bucket
	h.add(-1)
}
