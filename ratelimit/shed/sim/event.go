package sim

import "time"

// kind says what happens at an event.
type kind uint8

const (
	expires  kind = iota // the time of the attempt in the gate's queue
	timesOut             // the client of the attempt
	retries              // the request
)

// event is something to come.
type event struct {
	at    time.Duration
	order uint64 // of scheduling
	kind  kind

	request *request
	attempt *attempt
	number  uint64 // of the attempt: it may have ended, and its place be another's
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.order < o.order
}

// queue is what is to come: a binary heap, the next first, and the timeouts. These
// are all equally long, so that they are in order by themselves.
type queue struct {
	heap     []event
	timeouts []event
	first    int // of timeouts
	last     uint64
}

// next returns when the next event is.
func (q *queue) next() time.Duration {
	at := never
	if len(q.heap) > 0 {
		at = q.heap[0].at
	}
	if q.first < len(q.timeouts) {
		at = min(at, q.timeouts[q.first].at)
	}
	return at
}

func (q *queue) push(e event) {
	q.last++
	e.order = q.last
	if e.kind == timesOut {
		q.timeouts = append(q.timeouts, e)
		return
	}
	q.heap = append(q.heap, e)
	i := len(q.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !e.before(&q.heap[parent]) {
			break
		}
		q.heap[i] = q.heap[parent]
		i = parent
	}
	q.heap[i] = e
}

// pop removes and returns the next event; there is one.
func (q *queue) pop() event {
	if q.first < len(q.timeouts) && (len(q.heap) == 0 || q.timeouts[q.first].before(&q.heap[0])) {
		return q.popTimeout()
	}
	top := q.heap[0]
	n := len(q.heap) - 1
	e := q.heap[n]
	q.heap[n] = event{}
	q.heap = q.heap[:n]
	i := 0
	for child := 1; child < n; child = 2*i + 1 {
		if child+1 < n && q.heap[child+1].before(&q.heap[child]) {
			child++
		}
		if !q.heap[child].before(&e) {
			break
		}
		q.heap[i] = q.heap[child]
		i = child
	}
	if n > 0 {
		q.heap[i] = e
	}
	return top
}

func (q *queue) popTimeout() event {
	e := q.timeouts[q.first]
	q.first++
	if 2*q.first > len(q.timeouts) { // at least half is past
		n := copy(q.timeouts, q.timeouts[q.first:])
		q.timeouts, q.first = q.timeouts[:n], 0
	}
	return e
}
