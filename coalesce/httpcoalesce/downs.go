package httpcoalesce

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// downs remembers which owners could not be reached. The zero value knows none.
type downs struct {
	some atomic.Bool // until is not empty: no lock is needed while all are up

	mu    sync.Mutex
	until map[string]time.Time // when somebody may try again
}

// avoid tells whether to leave an owner alone. Once it has been down for long
// enough, the one who asks next may try it, and the others leave it alone for as
// long again.
func (d *downs) avoid(id string) bool {
	if !d.some.Load() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	until, down := d.until[id]
	now := time.Now()
	switch {
	case !down:
		return false
	case now.Before(until):
		return true
	}
	d.until[id] = now.Add(downFor)
	return false
}

func (d *downs) down(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil {
		d.until = map[string]time.Time{}
	}
	now := time.Now()
	// Nodes that have left the fleet while they were down are not asked again.
	maps.DeleteFunc(d.until, func(_ string, until time.Time) bool { return now.Sub(until) > time.Minute })
	d.until[id] = now.Add(downFor)
	d.some.Store(true)
}

func (d *downs) up(id string) {
	if !d.some.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.until, id)
	d.some.Store(len(d.until) > 0)
}
