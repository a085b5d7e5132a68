package shed_test

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

func ExampleShedder() {
	// The service has 50 workers; how many are busy is all that it knows of its load.
	var busy atomic.Int64
	shedder, err := shed.NewShedder(shed.ShedderOptions{
		Utilization: func() float64 { return float64(busy.Load()) / 50 },
		Seed:        1, // or each run sheds other users
	})
	if err != nil {
		panic(err)
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) // Admit reads the clock; AdmitAt is told
	for _, phase := range []struct {
		seconds int
		busy    int64
	}{{10, 30}, {10, 50}, {15, 50}, {60, 40}, {60, 20}} {
		busy.Store(phase.busy)
		for range phase.seconds {
			now = now.Add(time.Second)
			_ = shedder.AdmitAt(now, shed.Background, "batch")
			_ = shedder.AdmitAt(now, shed.Sheddable, "ann")
			_ = shedder.AdmitAt(now, shed.Critical, "ann")
		}
		fmt.Printf("%d s at %d%%: sheds %v\n", phase.seconds, 2*phase.busy, shedder.Stats().Level)
	}
	stats := shedder.Stats()
	fmt.Println("background shed:", stats.Shed.Of(shed.Background))
	fmt.Println("critical shed:", stats.Shed.Of(shed.Critical))
	// Output:
	// 10 s at 60%: sheds nothing
	// 10 s at 100%: sheds background 50%
	// 15 s at 100%: sheds sheddable 25%
	// 60 s at 80%: sheds sheddable 25%
	// 60 s at 40%: sheds background 65%
	// background shed: 101
	// critical shed: 0
}

// The refusal says which class was shed and when to come again.
func ExampleShedder_Admit() {
	shedder, err := shed.NewShedder(shed.ShedderOptions{
		Utilization: func() float64 { return 5 },
		Interval:    time.Nanosecond, // measures with each request
		ShedOver:    time.Nanosecond, // and sheds at once
	})
	if err != nil {
		panic(err)
	}
	for range 3 {
		err = shedder.Admit(shed.Sheddable, "ann")
	}
	fmt.Println(err)
	fmt.Println(shedder.Stats().Level)
	// Output:
	// shed: refused: sheddable request: overloaded
	// critical 100%
}
