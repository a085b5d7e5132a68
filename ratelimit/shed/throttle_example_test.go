package shed_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func ExampleThrottle() {
	throttle, err := shed.NewThrottle[string](shed.ThrottleOptions{
		Rand: rand.New(rand.NewPCG(1, 2)).Uint64, // or each run is another
	})
	if err != nil {
		panic(err)
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) // Allow reads the clock; AllowAt is told
	// Both backends are asked 100 times a second. One has gone.
	sent := map[string]int{}
	for range 60 * 100 {
		now = now.Add(10 * time.Millisecond)
		for _, name := range []string{"well", "gone"} {
			call, err := throttle.AllowAt(now, name, shed.Default)
			if err != nil {
				continue // and do without
			}
			sent[name]++
			call.Done(name == "well")
		}
	}
	fmt.Println("well:", sent["well"])
	fmt.Println("gone:", sent["gone"])
	// Output:
	// well: 6000
	// gone: 66
}
