package outboxtest

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// machine compares an outbox with a naive model of it: what was committed must
// be delivered, dead or still there after every step, and each first delivery of
// a key must find all messages before it delivered or dead.
func machine(t *testing.T, d Database) {
	db, box := setUp(t, d, outbox.Options{})
	rapid.Check(t, func(r *rapid.T) {
		for _, table := range []string{"outbox_messages", "outbox_waiting", "outbox_parked", "outbox_dead"} {
			execute(r, db, `DELETE FROM `+table)
		}
		execute(r, db, `DELETE FROM outbox_leases`)
		m := &model{
			d: d, db: db, box: box,
			committed: map[string]bool{}, delivered: map[string]bool{}, everDead: map[string]bool{}, locked: map[string]int{},
			unordered: map[string]bool{}, purged: map[string]bool{},
		}
		m.restart(r)
		defer m.rollbackAll()
		r.Repeat(map[string]func(*rapid.T){
			"begin":          m.begin,
			"add":            m.add,
			"savepoint":      m.savepoint,
			"commit":         func(r *rapid.T) { m.end(r, true) },
			"rollback":       func(r *rapid.T) { m.end(r, false) },
			"drain":          func(r *rapid.T) { m.drain(r, mood{fail: 4, permanent: 12, panics: 12}) },
			"drain all":      func(r *rapid.T) { m.drain(r, mood{}) },
			"drain and die":  func(r *rapid.T) { m.drain(r, mood{fail: 4, die: true}) },
			"drain and stop": func(r *rapid.T) { m.drain(r, mood{fail: 4, stop: true}) },
			"restart":        m.restart,
			"time passes":    func(r *rapid.T) { m.needWriter(r); makeDue(r, db) },
			"replay":         m.replay,
			"purge":          m.purge,
			"":               m.check,
		})
		m.finish(r)
	})
}

type model struct {
	d   Database
	db  *sql.DB
	box *outbox.Outbox

	open      []*modelTx
	locked    map[string]int  // keys that an open transaction has added to
	log       []string        // committed, in order
	committed map[string]bool // by name
	delivered map[string]bool
	everDead  map[string]bool
	unordered map[string]bool // delayed messages have no order
	purged    map[string]bool
	serial    int
}

type modelTx struct {
	tx    *sql.Tx
	names []string
	keys  []string
}

// A mood is how a publisher behaves: one in so many messages fails, is refused
// for ever, or makes it panic. It may die, which is losing the lease before the
// result is written down, or be stopped in the middle.
type mood struct {
	fail, permanent, panics int
	die, stop               bool
}

func (m *model) begin(r *rapid.T) {
	if len(m.open) >= m.d.Writers {
		r.Skip("no further transaction can be open")
	}
	tx, err := m.db.BeginTx(context.Background(), nil)
	require.NoError(r, err)
	m.open = append(m.open, &modelTx{tx: tx})
}

// needWriter skips what would wait for an open transaction.
func (m *model) needWriter(r *rapid.T) {
	if len(m.open) > 0 && m.d.Writers == 1 {
		r.Skip("the only writer is busy")
	}
}

func (m *model) pick(r *rapid.T) *modelTx {
	if len(m.open) == 0 {
		r.Skip("no transaction is open")
	}
	return m.open[rapid.IntRange(0, len(m.open)-1).Draw(r, "transaction")]
}

// message makes one of a key that no other open transaction has added to: their
// changes would wait for each other too.
func (m *model) message(r *rapid.T, x *modelTx) outbox.Message {
	key := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(r, "key")
	if key != "" && !slices.Contains(x.keys, key) {
		if m.locked[key] > 0 {
			key = ""
		} else {
			m.locked[key]++
			x.keys = append(x.keys, key)
		}
	}
	m.serial++
	out := msg(key, fmt.Sprintf("%s/%04d", key, m.serial))
	if rapid.IntRange(0, 7).Draw(r, "delay") == 0 {
		out.DeliverAt = time.Now().Add(time.Hour)
		m.unordered[string(out.Payload)] = true
	}
	return out
}

func (m *model) add(r *rapid.T) {
	if len(m.open) == 0 {
		m.begin(r)
	}
	x := m.pick(r)
	var msgs []outbox.Message
	for range rapid.IntRange(0, 5).Draw(r, "messages") {
		msgs = append(msgs, m.message(r, x))
		x.names = append(x.names, string(msgs[len(msgs)-1].Payload))
	}
	require.NoError(r, m.box.Add(context.Background(), x.tx, msgs...))
}

// savepoint adds a message and takes it back.
func (m *model) savepoint(r *rapid.T) {
	x := m.pick(r)
	_, err := x.tx.ExecContext(context.Background(), `SAVEPOINT here`)
	require.NoError(r, err)
	require.NoError(r, m.box.Add(context.Background(), x.tx, m.message(r, x)))
	_, err = x.tx.ExecContext(context.Background(), `ROLLBACK TO SAVEPOINT here`)
	require.NoError(r, err)
}

func (m *model) end(r *rapid.T, commit bool) {
	x := m.pick(r)
	if commit {
		require.NoError(r, x.tx.Commit())
		for _, name := range x.names {
			m.committed[name] = true
			m.log = append(m.log, name)
		}
	} else {
		require.NoError(r, x.tx.Rollback())
	}
	for _, key := range x.keys {
		m.locked[key]--
	}
	m.open = slices.DeleteFunc(m.open, func(y *modelTx) bool { return x == y })
}

func (m *model) rollbackAll() {
	for _, x := range m.open {
		_ = x.tx.Rollback()
	}
	m.open = nil
}

func (m *model) restart(r *rapid.T) {
	m.box = newOutbox(r, m.d, outbox.Options{
		Batch:       rapid.SampledFrom([]int{1, 2, 3, 5, 100}).Draw(r, "batch"),
		BatchBytes:  rapid.SampledFrom([]int{1, 20, 1 << 20}).Draw(r, "bytes"),
		MaxAttempts: rapid.SampledFrom([]int{1, 2, 3, -1}).Draw(r, "max attempts"),
	})
}

func (m *model) drain(r *rapid.T, how mood) {
	m.needWriter(r)
	// Rapid ends a bad run by a panic, which the outbox would catch, so the
	// publisher draws from its own source, and reports afterwards.
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
	oneIn := func(n int) bool { return n > 0 && random.IntN(n) == 0 }
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wrong []string
	calls := 0
	_, err := m.box.Drain(ctx, m.db, publisher(func(_ context.Context, batch []outbox.Message) []error {
		calls++
		if oneIn(how.panics) {
			panic("as told")
		}
		errs := make([]error, len(batch))
		for i, msg := range batch {
			name := string(msg.Payload)
			switch {
			case oneIn(how.fail):
				errs[i] = errDown
			case oneIn(how.permanent):
				errs[i] = outbox.Permanent(errDown)
			default:
				wrong = append(wrong, m.deliver(r, name)...)
			}
		}
		if how.die && oneIn(2) {
			execute(r, m.db, `DELETE FROM outbox_leases`)
		}
		if how.stop && oneIn(2) {
			stop()
		}
		return errs
	}))
	require.Empty(r, wrong)
	switch {
	case how.die && err != nil:
		require.ErrorIs(r, err, outbox.ErrLeased)
	case how.stop && err != nil:
		require.ErrorIs(r, err, context.Canceled)
	default:
		require.NoError(r, err)
	}
	for _, name := range names(r, m.db, "outbox_dead") {
		m.everDead[name] = true
	}
}

// deliver notes a delivery and returns what is wrong with it.
func (m *model) deliver(r *rapid.T, name string) (wrong []string) {
	if !m.committed[name] {
		wrong = append(wrong, name+" was never committed")
	}
	key := keyOf(name)
	if key != "" && !m.delivered[name] && !m.everDead[name] && !m.unordered[name] {
		var buried []string
		for _, before := range m.log[:slices.Index(m.log, name)] {
			if keyOf(before) != key || m.unordered[before] || m.delivered[before] || m.everDead[before] {
				continue
			}
			if buried == nil {
				buried = names(r, m.db, "outbox_dead")
			}
			if !slices.Contains(buried, before) {
				wrong = append(wrong, name+" came before "+before)
			}
		}
	}
	m.delivered[name] = true
	return wrong
}

func (m *model) replay(r *rapid.T) {
	m.needWriter(r)
	var ids []int64
	for msg, err := range m.box.Dead(context.Background(), m.db) {
		require.NoError(r, err)
		if rapid.Bool().Draw(r, "replay") {
			ids = append(ids, msg.ID)
		}
	}
	n, err := m.box.Replay(context.Background(), m.db, ids...)
	require.NoError(r, err)
	require.EqualValues(r, len(ids), n)
}

func (m *model) purge(r *rapid.T) {
	m.needWriter(r)
	dead := names(r, m.db, "outbox_dead")
	n, err := m.box.Purge(context.Background(), m.db, time.Now().Add(time.Hour))
	require.NoError(r, err)
	require.EqualValues(r, len(dead), n)
	for _, name := range dead {
		m.purged[name] = true
	}
}

// check is called after every step.
func (m *model) check(r *rapid.T) {
	checkTables(r, m.db)
	there := map[string]bool{}
	for _, name := range names(r, m.db, "outbox_messages", "outbox_waiting", "outbox_dead") {
		require.True(r, m.committed[name], "%s was never committed", name)
		there[name] = true
	}
	for name := range m.committed {
		require.True(r, there[name] || m.delivered[name] || m.purged[name], "%s is lost", name)
	}
}

// finish ends the run: everything that is not dead is delivered.
func (m *model) finish(r *rapid.T) {
	m.rollbackAll()
	for range 3 { // ready, then delayed ones, then those that waited behind them
		m.drain(r, mood{})
		makeDue(r, m.db)
	}
	m.drain(r, mood{})
	m.check(r)
	st, err := m.box.Stats(context.Background(), m.db)
	require.NoError(r, err)
	require.Zero(r, st.Ready+st.Waiting+st.ParkedKeys)
	for name := range m.committed {
		require.True(r, m.delivered[name] || m.everDead[name], "%s was not delivered", name)
	}
}
