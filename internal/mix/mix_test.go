package mix_test

import (
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/mix"
)

// The vectors are the first outputs of SplitMix64 for the seed 1234567, as Rosetta Code and
// Vigna's splitmix64.c have them.
func TestBitsIsTheFinalizerOfSplitMix64(t *testing.T) {
	t.Parallel()
	state := uint64(1234567)
	for _, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821} {
		state += 0x9e3779b97f4a7c15
		require.Equal(t, want, mix.Bits(state))
	}
}

func TestEveryBitChangesAboutHalfOfTheResult(t *testing.T) {
	t.Parallel()
	for bit := range 64 {
		changed := 0
		for x := range uint64(256) {
			changed += bits.OnesCount64(mix.Bits(x) ^ mix.Bits(x^1<<bit))
		}
		require.InDelta(t, 32, float64(changed)/256, 1.5)
	}
}
