package outbox

import "slices"

// A queue holds messages that were read and are not given to the Publisher yet:
// all of them, or those of one topic if topics are declared.
type queue struct {
	name        string // "" for all topics that have no queue of their own
	weight      int
	concurrency int

	entries []*entry
	bytes   int // of the payloads of entries
	running int // calls of Publish
	deficit int // messages that it may still send in this turn

	after int64 // every id up to here has been read
	more  bool  // there may be more to read

	// Of the messages in entries and in calls, those that had waited. They
	// have room of their own, so that neither kind keeps out the other.
	waited, waitedBytes int
	waits               bool // there may be more of those
}

func (q *queue) push(e *entry) {
	q.entries = append(q.entries, e)
	q.bytes += len(e.Payload)
}

// full reports whether q should read no more for now.
func (q *queue) full(o *Options) bool {
	return len(q.entries) >= o.Batch || q.bytes >= o.BatchBytes
}

// fullOfWaited is the same for messages that waited.
func (q *queue) fullOfWaited(o *Options) bool {
	return q.waited >= o.Batch || q.waitedBytes >= o.BatchBytes
}

// take removes from q, and returns, what keep refuses.
func (q *queue) take(keep func(*entry) bool) (taken []*entry) {
	q.entries = slices.DeleteFunc(q.entries, func(e *entry) bool {
		if keep(e) {
			return false
		}
		if taken == nil {
			taken = make([]*entry, 0, len(q.entries))
		}
		taken = append(taken, e)
		q.bytes -= len(e.Payload)
		return true
	})
	return taken
}

// turns are queues that take turns in being served, each for as many messages a
// turn as its weight says: deficit round robin.
type turns struct {
	queues []*queue
	topics map[string]*queue
	at     int
	// quantum is the messages of a turn of weight 1.
	quantum int
}

// newTurns makes a queue for each declared topic, in order of name, and a last
// one for all others: topics that another version of the service has declared.
func newTurns(o *Options) *turns {
	t := &turns{quantum: o.Batch, topics: map[string]*queue{}}
	names := make([]string, 0, len(o.Topics)+1)
	for name := range o.Topics {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		q := &queue{name: name, weight: o.Topics[name].Weight, concurrency: o.Topics[name].Concurrency, more: true, waits: true}
		t.queues, t.topics[name] = append(t.queues, q), q
	}
	others := &queue{weight: 1, concurrency: 1, more: true, waits: true}
	if len(names) == 0 {
		others.concurrency = o.Concurrency
	}
	t.queues = append(t.queues, others)
	t.queues[0].deficit = t.queues[0].weight * t.quantum
	return t
}

// queueOf returns the queue of a topic.
func (t *turns) queueOf(topic string) *queue {
	if q, ok := t.topics[topic]; ok {
		return q
	}
	return t.queues[len(t.queues)-1]
}

// next returns the queue whose turn it is, or nil. can says what a queue could do
// now: whether it could send, or, failing that, whether it is worth waiting for
// what it will read, because otherwise it would lose its turn.
func (t *turns) next(can func(*queue) (send, wait bool)) *queue {
	for range len(t.queues) + 1 {
		q := t.queues[t.at]
		send, wait := can(q)
		switch {
		case send && q.deficit > 0:
			return q
		case wait && q.deficit > 0:
			return nil
		case !send:
			q.deficit = 0 // what is not used is not saved up
		}
		t.at = (t.at + 1) % len(t.queues)
		next := t.queues[t.at]
		next.deficit = next.weight * t.quantum
	}
	return nil
}
