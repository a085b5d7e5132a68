package outbox

import (
	"math"
	"sync"
	"time"
)

// A meter counts the outcomes of attempts and averages the rate of deliveries.
type meter struct {
	mu                sync.Mutex
	delivered, failed int64
	rate              float64 // deliveries per second, as of at
	at                time.Time
}

// meterWindow is the time after which a delivery weighs 1/e in the rate.
const meterWindow = 10 * time.Second

func (m *meter) add(now time.Time, delivered, failed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decay(now)
	m.delivered += int64(delivered)
	m.failed += int64(failed)
	m.rate += float64(delivered) / meterWindow.Seconds()
}

// decay lets the rate fade until now. What comes in at a steady rate and fades
// like this averages to that rate.
func (m *meter) decay(now time.Time) {
	if past := now.Sub(m.at); past > 0 {
		m.rate *= math.Exp(-past.Seconds() / meterWindow.Seconds())
		m.at = now
	}
}

func (m *meter) read(now time.Time) (delivered, failed int64, rate float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decay(now)
	return m.delivered, m.failed, m.rate
}
