package gather

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
)

const defaultPerNode = 16

// Bulkhead bounds how many calls are at one node at once, over all scatters that
// share it through [Options]: many requests, each of which asks many shards, would
// otherwise exhaust the connections of a node, and one slow node the requests' own.
//
// Callers are served in the order in which they began to wait. A scatter that has
// calls for several nodes waits for all of them at once and makes the first that may
// start, so a node without room holds up no call to another. A scatter that has no
// worker free is passed over and keeps its place. Waiting ends with the scatter's
// context.
//
// A call must not start a scatter that shares its Bulkhead: with every slot
// held by a call that waits for another, none would go on.
//
// The zero value is ready for use. It remembers only nodes at which there are calls
// or that are waited for. A call costs two short critical sections. A Bulkhead must not be
// copied and is safe for concurrent use by multiple goroutines.
type Bulkhead struct {
	// PerNode is the most calls at a node at once. 0 means 16. It must not be changed
	// once the Bulkhead is in use.
	PerNode int

	mu    sync.Mutex
	nodes map[string]*room
}

// NodeUse says how busy a [Bulkhead] is at one node.
type NodeUse struct {
	InUse   int // calls at the node
	Waiting int // scatters and streams that have found no room, also those whose workers are busy
}

// room is the state of one node. Its queue holds tickets. Guarded by Bulkhead.mu.
type room struct {
	inUse int
	queue list.List
}

// ticket is a place in the queue of a node, for n slots.
type ticket struct {
	of *queuer
	n  int
}

// queuer is a scatter's hand in the queues of a bulkhead. It has at most one ticket a
// node, and gets at most one of them served each time that it asks.
type queuer struct {
	ready chan string // the node that was granted; has room for it

	// Guarded by Bulkhead.mu.
	asking  bool // without it the tickets only keep their places
	tickets map[string]*list.Element
}

func newQueuer() *queuer {
	return &queuer{ready: make(chan string, 1), tickets: make(map[string]*list.Element)}
}

func (b *Bulkhead) validate() error {
	if b != nil && b.PerNode < 0 {
		return fmt.Errorf("gather: Bulkhead.PerNode is %d, expected 0 or more", b.PerNode)
	}
	return nil
}

func (b *Bulkhead) perNode() int {
	if b.PerNode == 0 {
		return defaultPerNode
	}
	return b.PerNode
}

// Stats returns the nodes at which there are calls or waiting callers: a snapshot.
func (b *Bulkhead) Stats() map[string]NodeUse {
	b.mu.Lock()
	defer b.mu.Unlock()
	stats := make(map[string]NodeUse, len(b.nodes))
	for node, r := range b.nodes {
		stats[node] = NodeUse{InUse: r.inUse, Waiting: r.queue.Len()}
	}
	return stats
}

// room returns the state of a node, new if there is none. The caller holds mu.
func (b *Bulkhead) room(node string) *room {
	r := b.nodes[node]
	if r == nil {
		if b.nodes == nil {
			b.nodes = make(map[string]*room)
		}
		r = new(room)
		b.nodes[node] = r
	}
	return r
}

// acquire takes n slots at one of the nodes, whichever has them first; if several have,
// at the first of them. It returns the node, which the caller releases, or the error of
// the context.
func (b *Bulkhead) acquire(ctx context.Context, q *queuer, n int, nodes ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	b.mu.Lock()
	q.asking = true
	for _, node := range nodes {
		r := b.room(node)
		if q.tickets[node] == nil {
			q.tickets[node] = r.queue.PushBack(&ticket{q, n})
		}
		if b.serve(node, r); !q.asking {
			break
		}
	}
	b.mu.Unlock()

	select {
	case node := <-q.ready:
		return node, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	q.asking = false
	b.mu.Unlock()
	select {
	case node := <-q.ready: // both at once
		b.release(node, n)
	default:
	}
	return "", ctx.Err()
}

// serve grants slots to those who ask for them, first come first served. One who
// needs more than there are holds up those behind, or would wait for ever. The
// caller holds mu.
func (b *Bulkhead) serve(node string, r *room) {
	for e := r.queue.Front(); e != nil && r.inUse < b.perNode(); {
		next := e.Next()
		if t := e.Value.(*ticket); t.of.asking {
			if r.inUse+t.n > b.perNode() {
				return
			}
			r.inUse += t.n
			r.queue.Remove(e)
			delete(t.of.tickets, node)
			t.of.asking = false
			t.of.ready <- node
		}
		e = next
	}
}

// try takes a slot if one is free and nobody asks for it.
func (b *Bulkhead) try(node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.room(node)
	for e := r.queue.Front(); e != nil; e = e.Next() {
		if e.Value.(*ticket).of.asking {
			return false
		}
	}
	if r.inUse == b.perNode() {
		return false
	}
	r.inUse++
	return true
}

// release gives n slots back.
func (b *Bulkhead) release(node string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.nodes[node]
	r.inUse -= n
	b.tidy(node, r)
}

// leave takes a scatter out of all queues.
func (b *Bulkhead) leave(q *queuer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for node, e := range q.tickets {
		r := b.nodes[node]
		r.queue.Remove(e)
		b.tidy(node, r)
	}
	clear(q.tickets)
}

// tidy serves the queue of a node that has changed, and forgets the node if nothing
// is left. The caller holds mu.
func (b *Bulkhead) tidy(node string, r *room) {
	b.serve(node, r)
	if r.inUse == 0 && r.queue.Len() == 0 {
		delete(b.nodes, node)
	}
}

// lanes are the calls of one scatter that are not yet made, by node.
type lanes[R any] struct {
	bulkhead *Bulkhead
	queuer   *queuer

	// choosing is held, by a value in it, by the one worker that chooses a call. While
	// it waits, no node that is left has room, and nothing is lost if the other
	// workers wait for their turn. It guards the fields below.
	choosing chan struct{}
	nodes    []string // that have calls left; where to begin comes first
	calls    map[string][]*call[R]
}

func newLanes[R any](b *Bulkhead, calls []call[R]) *lanes[R] {
	l := &lanes[R]{bulkhead: b, queuer: newQueuer(), choosing: make(chan struct{}, 1), calls: make(map[string][]*call[R])}
	for i := range calls {
		c := &calls[i]
		if l.calls[c.node] == nil {
			l.nodes = append(l.nodes, c.node)
		}
		l.calls[c.node] = append(l.calls[c.node], c)
	}
	return l
}

// take returns the next call, with a slot at its node. It returns nil when no call is
// left, and calls without a slot once the context has ended.
func (l *lanes[R]) take(ctx context.Context) *call[R] {
	l.choosing <- struct{}{}
	defer func() { <-l.choosing }()
	if len(l.nodes) == 0 {
		return nil
	}
	node, err := l.bulkhead.acquire(ctx, l.queuer, 1, l.nodes...)
	if err != nil {
		node = l.nodes[0]
	}
	calls := l.calls[node]
	c := calls[0]
	c.slot = err == nil
	l.calls[node] = calls[1:]
	l.rotate(node, len(calls) > 1)
	return c
}

// rotate moves a node to the end of the list, so that the nodes are asked in turns,
// or off it.
func (l *lanes[R]) rotate(node string, more bool) {
	if l.nodes[0] == node { // as long as there is room
		l.nodes = l.nodes[1:]
	} else {
		i := slices.Index(l.nodes, node)
		l.nodes = slices.Delete(l.nodes, i, i+1)
	}
	if more {
		l.nodes = append(l.nodes, node)
	}
}

func (l *lanes[R]) leave() { l.bulkhead.leave(l.queuer) }
