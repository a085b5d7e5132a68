package sim

import "time"

// kind says what happens at an event. Its place in the order of simultaneous events
// is that of its scheduling.
type kind uint8

const (
	arrives   kind = iota // a request at its server: a is the request
	completes             // a request on server a, if b is still the server's version
	fails                 // request a, which the server has counted
	refused               // request a, which the server has not counted
	answered              // request a, at its client
	begins                // event a, on server b or on all of its servers if b < 0
	ceases                // event a, on server b or on all
	resumes               // coroutine a
	refreshes             // the old view of loads
	releases              // the ends of requests that were held back
	reports               // the loads, to all clients
)

const kindBits = 4

// happening is one event to come.
type happening struct {
	at    time.Duration
	order uint64 // of scheduling, and the kind in its low bits
	a, b  int32
}

func (h *happening) kind() kind { return kind(h.order & (1<<kindBits - 1)) }

func (h *happening) before(o *happening) bool {
	return h.at < o.at || h.at == o.at && h.order < o.order
}

// queue is a binary heap of what is to come, the next first.
type queue struct {
	heap []happening
	last uint64
}

func (q *queue) push(at time.Duration, k kind, a, b int32) {
	q.last++
	h := happening{at: at, order: q.last<<kindBits | uint64(k), a: a, b: b}
	q.heap = append(q.heap, h)
	i := len(q.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !h.before(&q.heap[parent]) {
			break
		}
		q.heap[i] = q.heap[parent]
		i = parent
	}
	q.heap[i] = h
}

// pop removes and returns the next; the queue is not empty.
func (q *queue) pop() happening {
	top := q.heap[0]
	n := len(q.heap) - 1
	h := q.heap[n]
	q.heap = q.heap[:n]
	if n == 0 {
		return top
	}
	heap := q.heap
	i := 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if right := child + 1; right < n && heap[right].before(&heap[child]) {
			child = right
		}
		if !heap[child].before(&h) {
			break
		}
		heap[i] = heap[child]
		i = child
	}
	heap[i] = h
	return top
}
