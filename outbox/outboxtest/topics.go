package outboxtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// to returns a message of a topic and key whose payload is its name.
func to(topic, key, name string) outbox.Message {
	return outbox.Message{Topic: topic, Key: key, Payload: []byte(name)}
}

// orderIsPerTopicAndKey: a destination that is down holds up its own messages of
// a key, and not those that others get.
func orderIsPerTopicAndKey(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	p := &recorder{fail: failing("mail/1")}
	add(t, db, box, to("mail", "k", "mail/1"), to("bus", "k", "bus/1"), to("mail", "k", "mail/2"), to("bus", "k", "bus/2"))
	drain(t, db, box, p)
	require.Equal(t, []string{"bus/1", "bus/2"}, p.take())
	p.fail = nil
	makeDue(t, db)
	drain(t, db, box, p)
	require.Equal(t, []string{"mail/1", "mail/2"}, p.take())
}

func topicsAreDeclared(t *testing.T, d Database) {
	db, open := setUp(t, d, outbox.Options{})
	box := newOutbox(t, d, outbox.Options{Topics: map[string]outbox.Topic{"a": {}, "b": {}}})
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	err = box.Add(t.Context(), tx, to("a", "", "1"), to("c", "", "2"))
	require.ErrorIs(t, err, outbox.ErrInvalid)
	require.ErrorContains(t, err, `message 2 of 2: Topic "c" is not one of Options.Topics: a, b`)
	require.NoError(t, box.Add(t.Context(), tx, to("a", "", "1")), "the transaction is usable")
	require.NoError(t, tx.Commit())

	// What another version of the service has added is delivered as well, and
	// no batch has messages of two topics that are declared.
	add(t, db, open, to("c", "k", "c/1"), to("b", "k", "b/1"), to("d", "k", "d/1"), to("a", "k", "a/1"), to("c", "k", "c/2"))
	p := &recorder{}
	require.Equal(t, 6, drain(t, db, box, p))
	for _, batch := range p.batches {
		for _, m := range batch {
			if m.Topic == "a" || m.Topic == "b" {
				require.Equal(t, batch[0].Topic, m.Topic)
			}
		}
	}
	require.ElementsMatch(t, []string{"1", "c/1", "b/1", "d/1", "a/1", "c/2"}, p.take())
}

// topicsTakeTurnsByWeight: while both have a backlog, a topic of weight 3 sends
// three messages for each one of a topic of weight 1, however long the backlog.
func topicsTakeTurnsByWeight(t *testing.T, d Database) {
	const each = 120
	db, box := setUp(t, d, outbox.Options{
		Batch: 10, Concurrency: 1,
		Topics: map[string]outbox.Topic{"heavy": {Weight: 3}, "light": {}, "idle": {Weight: 9}},
	})
	for _, topic := range []string{"light", "heavy"} { // the light backlog is in front
		var msgs []outbox.Message
		for i := range each {
			msgs = append(msgs, to(topic, "", fmt.Sprint(i)))
		}
		add(t, db, box, msgs...)
	}
	sent := map[string]int{}
	p := publisher(func(_ context.Context, batch []outbox.Message) []error {
		sent[batch[0].Topic] += len(batch)
		if heavy, light := sent["heavy"], sent["light"]; heavy < each {
			if light > heavy/3+10 || heavy > 3*light+30 {
				t.Errorf("%d heavy and %d light messages", heavy, light)
			}
		}
		return nil
	})
	require.Equal(t, 2*each, drain(t, db, box, p))
}

// slowTopicDelaysNobody has a destination that hangs until all the others are
// done, with a backlog in front of theirs.
func slowTopicDelaysNobody(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 10, Topics: map[string]outbox.Topic{"slow": {}, "fast": {}}})
	var slow, fast []outbox.Message
	for i := range 100 {
		slow = append(slow, to("slow", fmt.Sprint("k", i), fmt.Sprint(i)))
		fast = append(fast, to("fast", fmt.Sprint("k", i), fmt.Sprint(i)))
	}
	add(t, db, box, append(slow, fast...)...)
	var mu sync.Mutex
	delivered := 0
	done := make(chan struct{})
	n := drain(t, db, box, publisher(func(ctx context.Context, batch []outbox.Message) []error {
		if batch[0].Topic == "slow" {
			select {
			case <-done:
			case <-time.After(timeout):
				t.Error("the fast ones are not done")
			}
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if delivered += len(batch); delivered == len(fast) {
			close(done)
		}
		return nil
	}))
	require.Equal(t, 200, n)
}

// pausedTopicWaits, and in order, while others go on.
func pausedTopicWaits(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 3})
	p := &recorder{}
	require.NoError(t, box.Pause(t.Context(), db, "mail"))
	require.NoError(t, box.Pause(t.Context(), db, "mail"), "twice is once")
	add(t, db, box, to("mail", "k", "1"), to("bus", "k", "bus"), to("mail", "", "free"), to("mail", "k", "2"), to("mail", "l", "l/1"))
	drain(t, db, box, p)
	require.Equal(t, []string{"bus"}, p.take())
	st, err := box.Stats(t.Context(), db)
	require.NoError(t, err)
	require.Equal(t, []outbox.TopicStats{{Topic: "mail", Waiting: 4, Paused: true}}, st.Topics)
	require.Zero(t, st.Leases)

	// It survives a restart, and holds for what is added later.
	box = newOutbox(t, d, outbox.Options{})
	add(t, db, box, to("mail", "k", "3"), to("mail", "", "free too"))
	drain(t, db, box, p)
	require.Empty(t, p.take())

	require.NoError(t, box.Resume(t.Context(), db, "mail"))
	require.NoError(t, box.Resume(t.Context(), db, "never paused"))
	add(t, db, box, to("mail", "k", "4"))
	require.Equal(t, 7, drain(t, db, box, p))
	var ordered []string
	for _, m := range p.messages {
		require.Equal(t, 1, m.Attempt, "waiting is no attempt")
		if m.Key == "k" {
			ordered = append(ordered, string(m.Payload))
		}
	}
	require.Equal(t, []string{"1", "2", "3", "4"}, ordered)
	require.Zero(t, count(t, db, `SELECT count(*) FROM outbox_parked`))

	for _, topic := range []string{"", "a\x00b"} {
		require.ErrorIs(t, box.Pause(t.Context(), db, topic), outbox.ErrInvalid)
	}
}

// pauseReachesRun pauses and resumes while a drainer is at work, again and again.
func pauseReachesRun(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 2, PollMin: time.Millisecond, PollMax: 5 * time.Millisecond})
	ctx, stop := context.WithTimeout(t.Context(), timeout)
	defer stop()
	var mu sync.Mutex
	var got []string
	more := make(chan struct{}, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		require.NoError(t, box.Run(ctx, db, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, string(m.Payload))
			more <- struct{}{}
			return nil
		})))
	})
	const messages = 60
	for i := range messages {
		add(t, db, box, to("mail", "k", fmt.Sprint(i)))
		box.Wake()
		switch i % 10 {
		case 3:
			require.NoError(t, box.Pause(ctx, db, "mail"))
		case 7:
			require.NoError(t, box.Resume(ctx, db, "mail"))
		}
	}
	for range messages {
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatal("a resumed topic is not delivered")
		}
	}
	stop()
	wg.Wait()
	for i, name := range got {
		require.Equal(t, fmt.Sprint(i), name, "in order")
	}
}

// callsRunAtOnce asks for four calls of Publish at once, and for no two with the
// same key.
func callsRunAtOnce(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{Batch: 5, Concurrency: 4})
	var msgs []outbox.Message
	for i := range 100 {
		msgs = append(msgs, msg(fmt.Sprint("k", i%50), fmt.Sprint(i)))
	}
	add(t, db, box, msgs...)
	var mu sync.Mutex
	busy := map[string]bool{}
	running, most := 0, 0
	together := make(chan struct{})
	n := drain(t, db, box, publisher(func(_ context.Context, batch []outbox.Message) []error {
		mu.Lock()
		for _, m := range batch {
			if busy[m.Key] {
				t.Errorf("two calls at once have messages of %s", m.Key)
			}
			busy[m.Key] = true
		}
		running++
		if most = max(most, running); running == 4 && most == 4 {
			select {
			case <-together:
			default:
				close(together)
			}
		}
		mu.Unlock()
		select {
		case <-together:
		case <-time.After(timeout):
			t.Error("four calls never ran at once")
		}
		mu.Lock()
		defer mu.Unlock()
		running--
		for _, m := range batch {
			delete(busy, m.Key)
		}
		return nil
	}))
	require.Equal(t, 100, n)
	require.Equal(t, 4, most)
}

// drainersShareBuckets: the keys are shared fairly by those who are there, and
// all of them are served whoever comes and goes.
func drainersShareBuckets(t *testing.T, d Database) {
	o := outbox.Options{PollMin: time.Millisecond, PollMax: 5 * time.Millisecond}
	db, box := setUp(t, d, o)
	buckets := d.Dialect.SQL().Buckets
	type drainer struct {
		stop func()
	}
	var mu sync.Mutex
	got := 0
	begin := func() drainer {
		ctx, cancel := context.WithCancel(t.Context())
		box := newOutbox(t, d, o)
		done := make(chan struct{})
		go func() {
			defer close(done)
			require.NoError(t, box.Run(ctx, db, publisher(func(_ context.Context, batch []outbox.Message) []error {
				mu.Lock()
				defer mu.Unlock()
				got += len(batch)
				return nil
			})))
		}()
		return drainer{func() { cancel(); <-done }}
	}
	settled := func(drainers int) {
		await(t, func() bool {
			st, err := box.Stats(t.Context(), db)
			require.NoError(t, err)
			if len(st.Leases) != drainers {
				return false
			}
			sum, most, least := 0, 0, buckets
			for _, l := range st.Leases {
				sum, most, least = sum+l.Buckets, max(most, l.Buckets), min(least, l.Buckets)
			}
			return sum == buckets && most-least <= 1
		})
		mu.Lock()
		before := got
		mu.Unlock()
		var msgs []outbox.Message
		for i := range 100 {
			msgs = append(msgs, msg(fmt.Sprint("k", i), "x"))
		}
		add(t, db, box, msgs...)
		await(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return got == before+100
		})
	}
	a := begin()
	settled(1)
	b, c := begin(), begin()
	settled(3)
	a.stop()
	settled(2)
	b.stop()
	settled(1)
	c.stop()
	checkTables(t, db)
}

// await looks again and again until f is true.
func await(t *testing.T, f func() bool) {
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	end := time.After(timeout)
	for !f() {
		select {
		case <-look.C:
		case <-end:
			t.Fatal("it never happens")
		}
	}
}
