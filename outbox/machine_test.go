package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// TestWhateverHappensAllIsDeliveredInOrder runs drainers of every kind against a
// database that fails, loses answers and tears leases, while topics are paused and
// resumed and messages fail in every way, in virtual time. A drainer that spins
// hangs it.
func TestWhateverHappensAllIsDeliveredInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, whateverHappens) })
}

// A fate is what becomes of a message at the destination.
type fate struct {
	name      string
	topic     string
	key       string
	version   int  // of its topic and key
	delayed   bool // has no place in the order of its key
	failures  int  // attempts that fail
	how       int  // of howItFails
	permanent bool
	dies      bool
}

// howItFails are ways of a Publisher to say no.
var howItFails = []func(outbox.Message) error{
	func(outbox.Message) error { return errDown },
	func(outbox.Message) error { return outbox.RetryAfter(errDown, 0) },
	func(outbox.Message) error { return outbox.RetryAfter(errDown, 1<<62) },
	func(outbox.Message) error { return outbox.RetryAfter(errDown, 3*time.Second) },
	func(outbox.Message) error { return lyingError{} },
	func(m outbox.Message) error { panic(m.ID) },
}

const forEver = 2 // of howItFails: comes back only when it is replayed

type lyingError struct{}

func (lyingError) Error() string { panic("asked") }

// A world is the destination and what it has seen.
type world struct {
	mu      sync.Mutex
	fates   map[string]*fate // by payload
	seen    map[string]bool
	newest  map[[2]string]int // version by topic and key
	paused  map[string]time.Time
	healed  bool
	wrong   []string
	slow    int // each so many calls one is longer than a lease
	calls   int
	patient bool
}

func (w *world) complain(format string, args ...any) {
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// A visitor publishes for one Run, and looks at what it is given.
type visitor struct {
	*world
	o       outbox.Options
	running int
	topics  map[string]int
	keys    map[[2]string]bool
}

func (v *visitor) Publish(ctx context.Context, batch []outbox.Message) []error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.enter(batch)
	defer v.leave(batch)
	v.calls++
	if v.slow > 0 && v.calls%v.slow == 0 {
		v.sleep(ctx, 2500*time.Millisecond)
	} else {
		v.sleep(ctx, time.Duration(v.calls%7)*time.Millisecond)
	}
	errs := make([]error, len(batch))
	for i, m := range batch {
		errs[i] = v.accept(m)
	}
	return errs
}

// sleep lets others in.
func (v *visitor) sleep(ctx context.Context, d time.Duration) {
	v.mu.Unlock()
	defer v.mu.Lock()
	if v.patient {
		time.Sleep(d)
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (v *visitor) enter(batch []outbox.Message) {
	v.running++
	limit := v.o.Concurrency
	if limit == 0 {
		for _, t := range v.o.Topics {
			limit += max(1, t.Concurrency)
		}
		limit = max(1, limit)
	}
	if v.running > limit {
		v.complain("%d calls at once", v.running)
	}
	if len(batch) == 0 || len(batch) > v.o.Batch {
		v.complain("a batch of %d", len(batch))
	}
	size, last := 0, int64(0)
	for i, m := range batch {
		if i < len(batch)-1 {
			size += len(m.Payload)
		}
		if since, ok := v.paused[m.Topic]; ok && time.Since(since) > time.Minute {
			v.complain("%s: topic %s is paused", m.Payload, m.Topic)
		}
		if m.ID == last {
			v.complain("%s comes twice in a batch", m.Payload)
		}
		last = m.ID
		if _, declared := v.o.Topics[m.Topic]; declared && m.Topic != batch[0].Topic {
			v.complain("topics %s and %s in a batch", m.Topic, batch[0].Topic)
		}
		if k := [2]string{m.Topic, m.Key}; m.Key != "" {
			if v.keys[k] {
				v.complain("%s: its key is being published", m.Payload)
			}
			v.keys[k] = true
		}
	}
	if v.o.BatchBytes > 0 && size >= v.o.BatchBytes {
		v.complain("a batch goes on after %d bytes", size)
	}
	topic := batch[0].Topic
	v.topics[topic]++
	if t, declared := v.o.Topics[topic]; declared && v.topics[topic] > max(1, t.Concurrency) {
		v.complain("%d calls of topic %s", v.topics[topic], topic)
	}
}

func (v *visitor) leave(batch []outbox.Message) {
	v.running--
	v.topics[batch[0].Topic]--
	for _, m := range batch {
		delete(v.keys, [2]string{m.Topic, m.Key})
	}
}

// accept is called with the lock.
func (v *visitor) accept(m outbox.Message) (err error) {
	f := v.fates[string(m.Payload)]
	if !v.healed {
		if f.permanent {
			return outbox.Permanent(errDown)
		}
		if m.Attempt <= f.failures {
			defer func() {
				if r := recover(); r != nil {
					err = errors.New("panicked")
				}
			}()
			return howItFails[f.how](m)
		}
	}
	if v.seen[f.name] {
		return nil // again
	}
	v.seen[f.name] = true
	if f.key == "" || f.delayed || f.dies {
		return nil
	}
	k := [2]string{f.topic, f.key}
	if f.version < v.newest[k] {
		v.complain("%s of %v comes after version %d", f.name, k, v.newest[k])
	}
	v.newest[k] = f.version
	return nil
}

func drawOptions(t *rapid.T) outbox.Options {
	o := outbox.Options{
		Batch: rapid.IntRange(1, 6).Draw(t, "batch"), Concurrency: rapid.IntRange(0, 4).Draw(t, "concurrency"),
		Lease: time.Second, PollMin: 100 * time.Millisecond, PollMax: 2 * time.Second,
		RetryBase: time.Second, RetryMax: 5 * time.Second, MaxAttempts: 3,
	}
	if rapid.Bool().Draw(t, "small") {
		o.BatchBytes = rapid.IntRange(1, 30).Draw(t, "bytes")
	}
	if rapid.Bool().Draw(t, "declared") {
		o.Topics = map[string]outbox.Topic{
			"x": {Weight: rapid.IntRange(0, 3).Draw(t, "weight"), Concurrency: rapid.IntRange(0, 3).Draw(t, "of x")},
			"y": {},
		}
	}
	return o
}

var machineTopics = []string{"x", "y", "z"} // z is never declared

func whateverHappens(t *rapid.T) {
	f := outbox.NewFake(rapid.IntRange(1, 6).Draw(t, "buckets"))
	w := &world{
		fates: map[string]*fate{}, seen: map[string]bool{}, newest: map[[2]string]int{}, paused: map[string]time.Time{},
		slow: rapid.IntRange(0, 5).Draw(t, "slow"), patient: rapid.Bool().Draw(t, "patient"),
	}
	// A trouble is drawn for each operation, as long as there are any.
	troubles := rapid.SliceOfN(rapid.IntRange(0, 12), 0, 200).Draw(t, "troubles")
	var mu sync.Mutex // for troubles
	trouble := func() int {
		mu.Lock()
		defer mu.Unlock()
		if len(troubles) == 0 {
			return 0
		}
		n := troubles[0]
		troubles = troubles[1:]
		return n
	}
	f.Fail = func(ctx context.Context, op string) error {
		if op == "check" {
			return nil
		}
		switch trouble() {
		case 1:
			return outbox.ErrDatabase
		case 2:
			if op == "renew" {
				<-ctx.Done()
				return ctx.Err()
			}
		case 3:
			time.Sleep(50 * time.Millisecond)
		case 4:
			f.Steal()
		}
		return nil
	}
	f.Lost = func(op string) error { // with the lock of f
		if trouble() == 1 {
			return outbox.ErrDatabase
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	runs := rapid.IntRange(1, 4).Draw(t, "runs")
	for range runs {
		o := drawOptions(t)
		box := newOutbox(t, o)
		o.Batch = max(o.Batch, 1)
		v := &visitor{world: w, o: o, topics: map[string]int{}, keys: map[[2]string]bool{}}
		wg.Go(func() {
			if err := box.RunOn(ctx, f, v); err != nil {
				panic(err)
			}
		})
	}
	versions := map[[2]string]int{}
	dies := 0
	t.Repeat(map[string]func(*rapid.T){
		"add": func(t *rapid.T) {
			for range rapid.IntRange(1, 8).Draw(t, "n") {
				ft := &fate{
					topic: rapid.SampledFrom(machineTopics).Draw(t, "topic"), key: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "key"),
					delayed: rapid.IntRange(0, 5).Draw(t, "delayed") == 0, how: rapid.IntRange(0, len(howItFails)-1).Draw(t, "how"),
					permanent: rapid.IntRange(0, 9).Draw(t, "permanent") == 0,
				}
				ft.failures = max(0, rapid.IntRange(-3, 3).Draw(t, "failures"))
				if ft.how == forEver {
					ft.failures = 0
				}
				ft.dies = ft.permanent || ft.failures >= 3
				w.mu.Lock()
				k := [2]string{ft.topic, ft.key}
				versions[k]++
				ft.version = versions[k]
				ft.name = fmt.Sprintf("%s/%s/%d", ft.topic, ft.key, ft.version)
				w.fates[ft.name] = ft
				w.mu.Unlock()
				if ft.dies {
					dies++
				}
				m := outbox.Message{Topic: ft.topic, Key: ft.key, Payload: []byte(ft.name)}
				if ft.delayed {
					m.DeliverAt = time.Now().Add(time.Duration(rapid.IntRange(-2, 20).Draw(t, "in")) * time.Second)
				}
				f.Add(m)
			}
		},
		"pause": func(t *rapid.T) {
			topic := rapid.SampledFrom(machineTopics).Draw(t, "topic")
			w.mu.Lock()
			defer w.mu.Unlock()
			if _, paused := w.paused[topic]; !paused {
				w.paused[topic] = time.Now()
				f.Pause(topic, true)
			}
		},
		"resume": func(t *rapid.T) {
			topic := rapid.SampledFrom(machineTopics).Draw(t, "topic")
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.paused, topic)
			f.Pause(topic, false)
		},
		"wait": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.SampledFrom([]int{1, 10, 100, 1000, 3000, 70_000}).Draw(t, "ms")) * time.Millisecond)
		},
		"tear": func(*rapid.T) { f.Steal() },
		"": func(t *rapid.T) {
			w.mu.Lock()
			defer w.mu.Unlock()
			require.Empty(t, w.wrong)
		},
	})
	mu.Lock()
	troubles = nil
	mu.Unlock()
	w.mu.Lock()
	w.slow = 0
	for _, topic := range machineTopics {
		delete(w.paused, topic)
		f.Pause(topic, false)
	}
	w.mu.Unlock()
	time.Sleep(5 * time.Minute)
	require.Empty(t, w.wrong)
	require.Empty(t, f.Table("ready"))
	require.Empty(t, f.Table("waiting"))
	require.Len(t, f.Table("dead"), dies)
	require.Len(t, f.Table("gone"), len(w.fates)-dies)
	quiet(t, f, runs)

	cancel()
	wg.Wait()
	shares, _ := f.Shares()
	require.Empty(t, shares, "leases that are left")

	// What died, and some more, in a Drain.
	w.healed = true
	require.Equal(t, dies, f.Replay())
	o := drawOptions(t)
	n, err := newOutbox(t, o).DrainOn(t.Context(), f, &visitor{world: w, o: o, topics: map[string]int{}, keys: map[[2]string]bool{}})
	require.NoError(t, err)
	require.Equal(t, dies, n)
	require.Empty(t, w.wrong)
	require.Len(t, f.Table("gone"), len(w.fates))
}

// quiet wants few operations of drainers that have nothing to do.
func quiet(t *rapid.T, f *outbox.Fake, runs int) {
	ops := []string{"fetch", "waiting", "look", "rebalance"}
	before := map[string]int{}
	for _, op := range ops {
		before[op] = f.Calls(op)
	}
	time.Sleep(time.Minute)
	for _, op := range ops {
		require.LessOrEqual(t, f.Calls(op)-before[op], runs*62, "%s: one in PollMax/2", op)
	}
	for _, op := range []string{"ack", "settle", "join", "resume"} {
		calls := f.Calls(op)
		time.Sleep(time.Second)
		require.Equal(t, calls, f.Calls(op), op)
	}
}
