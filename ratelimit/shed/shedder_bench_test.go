package shed_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// bench runs an operation alone and on all processors.
func bench(b *testing.B, name string, op func()) {
	b.Run(name+"/contended=no", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			op()
		}
	})
	b.Run(name+"/contended=yes", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				op()
			}
		})
	})
}

func BenchmarkAdmit(b *testing.B) {
	// What any shedder that counts pays: a reading of the clock and an addition.
	epoch, late := time.Now(), atomic.Int64{}
	var count atomic.Uint64
	bench(b, "op=floor", func() {
		if int64(time.Since(epoch)) >= 0 {
			count.Add(1)
		} else {
			late.Add(1)
		}
	})
	for _, bm := range []struct {
		name  string
		at    int // seconds of overload before
		class shed.Class
	}{
		{"op=admit", 0, shed.Default},
		{"op=hash", 10, shed.Background},
		{"op=refuse", 40, shed.Background},
	} {
		// It is made with times of the past, so that Admit measures once a second.
		r := newRig(b, shed.ShedderOptions{})
		r.run(bm.at, 1)
		r.utilization = 0.8
		bench(b, bm.name, func() { _ = r.Admit(bm.class, "somebody") })
	}
}

func BenchmarkMeasure(b *testing.B) {
	m, err := shed.NewRuntimeMeter(shed.RuntimeMeterOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("op=runtime", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.MeasureNow()
		}
	})
}
