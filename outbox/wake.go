package outbox

import (
	"slices"
	"sync"
	"sync/atomic"
)

// alarms are the sessions of this process that want to be woken. The list is a
// snapshot that is replaced, so that a Wake takes no lock.
type alarms struct {
	mu   sync.Mutex // for those who change list
	list atomic.Pointer[[]*alarm]
}

// An alarm wakes one session.
type alarm struct {
	// c has room for one, so that any number of Wakes are one.
	c chan struct{}
	// waiting says that messages that wait may have become due, which a plain
	// Wake does not make anybody look for.
	waiting atomic.Bool
}

func (a *alarms) ring(waiting bool) {
	list := a.list.Load()
	if list == nil {
		return
	}
	for _, b := range *list {
		if waiting {
			b.waiting.Store(true)
		}
		select {
		case b.c <- struct{}{}:
		default:
		}
	}
}

// set adds an alarm, to be removed by its caller.
func (a *alarms) set() *alarm {
	added := &alarm{c: make(chan struct{}, 1)}
	a.change(func(list []*alarm) []*alarm { return append(list, added) })
	return added
}

func (a *alarms) remove(gone *alarm) {
	a.change(func(list []*alarm) []*alarm {
		return slices.DeleteFunc(list, func(b *alarm) bool { return b == gone })
	})
}

func (a *alarms) change(f func([]*alarm) []*alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []*alarm
	if old := a.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = f(list)
	a.list.Store(&list)
}
