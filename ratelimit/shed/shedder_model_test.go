package shed_test

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// naiveShedder keeps a number for each class: what is shed of it, in billionths.
type naiveShedder struct {
	parts    [4]int64
	busy     [4]bool
	measured time.Time
}

func (n *naiveShedder) measure(now time.Time, utilization float64) {
	elapsed := now.Sub(n.measured)
	n.measured = now
	busy := n.busy
	n.busy = [4]bool{}
	switch {
	case utilization > 0.9:
		if busy == [4]bool{} {
			return
		}
		elapsed = min(elapsed, 2*time.Second)
		left := int64(math.Round(float64(elapsed) / 20 * min(max(utilization, 1), 10)))
		critical := n.parts[2] == 1e9 && utilization > 2
		if critical {
			left = int64(math.Round(float64(elapsed) / 20))
		}
		for i := range n.parts {
			if left <= 0 || i == 3 && !critical {
				return
			}
			part := int64(1e9) - n.parts[i]
			if busy[i] {
				part = min(part, left)
				left -= part
			}
			n.parts[i] += part
		}
	case !(utilization >= 0.72):
		left := float64(elapsed)
		for i := 3; i >= 0; i-- {
			over := 100.0
			if i == 3 {
				over = 20
			}
			part := min(float64(n.parts[i]), left/over)
			n.parts[i] -= int64(math.Round(part))
			left -= part * over
		}
	}
}

func TestShedderFollowsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		utilization, now := 0.0, noon
		s, err := shed.NewShedder(shed.ShedderOptions{Seed: 7, Low: 0.72, Utilization: func() float64 { return utilization }})
		require.NoError(t, err)
		model := naiveShedder{measured: now.Add(-time.Hour)}
		var admitted, refused shed.Counts
		t.Repeat(map[string]func(*rapid.T){
			"request": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(-2e9, 4e9).Draw(t, "pause")))
				class := rapid.SampledFrom(allClasses).Draw(t, "class")
				user := strconv.Itoa(rapid.IntRange(0, 99).Draw(t, "user"))
				if now.Sub(model.measured) >= time.Second {
					model.measure(now, utilization)
				}
				i := int(class - shed.Background)
				model.busy[i] = true
				err := s.AdmitAt(now, class, user)
				switch part := model.parts[i]; part {
				case 0:
					require.NoError(t, err)
				case 1e9:
					require.ErrorIs(t, err, shed.ErrShed)
				}
				if err == nil {
					admitted[i]++
					return
				}
				refused[i]++
				var refusal *shed.Error
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, class, refusal.Class)
				require.Equal(t, shed.Overloaded, refusal.Reason)
				above := int64(0) // the time in which what is above the class comes back
				for class, part := range model.parts[i+1:] {
					if i+1+class == 3 {
						part /= 5
					}
					above += part * 100
				}
				require.InDelta(t, float64(time.Second)+float64(above), float64(refusal.RetryAfter), 1000)
			},
			"utilization": func(t *rapid.T) {
				utilization = rapid.SampledFrom([]float64{0, 0.5, 0.72, 0.8, 0.9, 0.95, 1, 1.5, 3, 20, math.NaN(), math.Inf(1), -1}).Draw(t, "utilization")
			},
			"": func(t *rapid.T) {
				stats := s.Stats()
				require.Equal(t, admitted, stats.Admitted)
				require.Equal(t, refused, stats.Shed)
				for i, part := range model.parts {
					require.InDelta(t, float64(part)/1e9, stats.Level.Shed(allClasses[i]), 1e-12)
				}
			},
		})
	})
}
