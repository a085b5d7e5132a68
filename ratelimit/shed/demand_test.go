package shed_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func TestDemandIsAboveOneByWhatTheGateRefuses(t *testing.T) {
	fixed, err := shed.NewConcurrency(shed.ConcurrencyOptions{Limit: 10})
	require.NoError(t, err)
	learnt, err := shed.NewAdaptive(shed.AdaptiveOptions{Initial: 10})
	require.NoError(t, err)
	for _, gate := range []interface {
		TryAcquire(shed.Class) (shed.Permit, error)
		Demand() func() float64
	}{fixed, learnt} {
		demand, another := gate.Demand(), gate.Demand()
		require.Zero(t, demand(), "nobody came")
		var permits []shed.Permit
		acquire := func(n int) {
			for range n {
				if p, err := gate.TryAcquire(shed.Default); err == nil {
					permits = append(permits, p)
				}
			}
		}
		acquire(5)
		require.Equal(t, 0.5, demand(), "half full")
		acquire(10)
		require.Equal(t, 2.0, demand(), "10 came, and 5 were let in")
		require.Equal(t, 1.0, demand(), "nobody came since, and it is full")
		acquire(4)
		require.Equal(t, 4.0, demand(), "none was let in")
		require.Equal(t, 1.9, another(), "19 for 10")
		for i := range permits {
			permits[i].Release(shed.Ignore)
		}
		require.Zero(t, demand())
	}
}

// A shedder that goes by the demand sheds what its gate would refuse, and nothing else.
func ExampleConcurrency_Demand() {
	gate, err := shed.NewConcurrency(shed.ConcurrencyOptions{Limit: 1})
	if err != nil {
		panic(err)
	}
	demand := gate.Demand()
	_ = gate.Do(context.Background(), shed.Default, func(context.Context) error {
		fmt.Printf("%.1f\n", demand()) // full, and nobody was refused
		for range 2 {
			_, _ = gate.TryAcquire(shed.Background)
		}
		fmt.Printf("%.1f\n", demand())
		return nil
	})
	fmt.Printf("%.1f\n", demand())
	// Output:
	// 1.0
	// 2.0
	// 0.0
}
