package shed_test

import (
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// A meter of its own, with stricter bounds, whose parts can be shown to an operator.
func ExampleRuntimeMeter() {
	meter, err := shed.NewRuntimeMeter(shed.RuntimeMeterOptions{Latency: 5 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	shedder, err := shed.NewShedder(shed.ShedderOptions{Utilization: meter.Utilization})
	if err != nil {
		panic(err)
	}
	fmt.Println("admit:", shedder.Admit(shed.Background, "ann"))
	fmt.Println("utilization:", meter.Reading().Utilization) // nothing was measured yet
	// Output:
	// admit: <nil>
	// utilization: NaN
}
