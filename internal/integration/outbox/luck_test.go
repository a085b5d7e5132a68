//go:build unix

package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
)

// A simulated hour of bad luck takes a seventh of that. Leases, polls and what
// goes wrong are shorter by as much.
const (
	luckSpeed   = 7
	luckDefault = 20 * time.Second
	// between two strokes of bad luck, on average, simulated
	luckEvery = 4 * time.Second
)

// TestLuck has processes that add and drain, on each database, while everything
// goes wrong that can: processes are killed and frozen, connections cut, silent
// and slow, servers killed, transactions stay open, topics are paused, messages
// are poison. A model looks at every delivery, and that all comes out when luck
// turns. EVENKEEL_LUCK says for how long (simulated, 1h for nightly use), and
// EVENKEEL_LUCK_SEED repeats the strokes, though not how processes interleave.
func TestLuck(t *testing.T) {
	t.Parallel()
	underRace(t)
	simulated, seed := luckDefault, rand.Uint64()
	var err error
	if text := os.Getenv("EVENKEEL_LUCK"); text != "" {
		simulated, err = time.ParseDuration(text)
		require.NoError(t, err, "EVENKEEL_LUCK")
	}
	if text := os.Getenv("EVENKEEL_LUCK_SEED"); text != "" {
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "EVENKEEL_LUCK_SEED")
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: EVENKEEL_LUCK=%v EVENKEEL_LUCK_SEED=%d go test -run %s -timeout 20m .", simulated, seed, t.Name())
		}
	})
	kinds := []string{"postgres", "mysql", "ncruces", "modernc"}
	now := kinds
	if os.Getenv("EVENKEEL_LUCK") == "" && os.Getenv("EVENKEEL_LUCK_SEED") == "" {
		now = some(2, kinds...)
	}
	for i, kind := range kinds {
		if !slices.Contains(now, kind) {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := newFate(t, kind, rand.New(rand.NewPCG(seed, uint64(i))))
			f.live(simulated / luckSpeed)
		})
	}
}

// A fate is what happens to one database and its processes.
type fate struct {
	t         *testing.T
	random    *rand.Rand
	s         *site // as the model sees it
	orders    orders
	srv       server // nil for SQLite
	proxy     *testserver.Proxy
	processes [3]*process
	frozen    [3]bool
	busy      map[string]bool // strokes that have not ended
	ends      []ending
	strokes   map[string]int
	m         luckModel
}

// An ending is when a stroke of bad luck ends.
type ending struct {
	at   time.Time
	name string
	f    func()
}

func newFate(t *testing.T, kind string, random *rand.Rand) *fate {
	f := &fate{t: t, random: random, busy: map[string]bool{}, strokes: map[string]int{}}
	f.s = &site{Kind: kind, Folder: t.TempDir()}
	f.orders = orders{Options: childOptions{Batch: 20, Lease: time.Second}, Drain: true, Add: true, Fail: 20, Poison: 50, Publish: -1}
	switch kind {
	case "postgres":
		f.srv = testserver.StartPostgres(t, testserver.PostgresOptions{})
		f.s.DSN = f.srv.DSN()
	case "mysql":
		f.srv = testserver.StartMariaDB(t, testserver.MariaDBOptions{})
		f.s.DSN = f.srv.DSN()
	default:
		f.s.DSN = dsn(filepath.Join(t.TempDir(), "test.db"))
	}
	f.s.setUp(t)
	f.orders.Site = *f.s
	if f.srv != nil {
		f.proxy = testserver.StartProxy(t, f.srv.Addr())
		f.orders.Site.DSN = strings.Replace(f.s.DSN, f.srv.Addr(), f.proxy.Addr(), 1)
	}
	for i := range f.processes {
		f.birth(i)
	}
	f.m = luckModel{seen: map[string]bool{}, next: map[string]int{}, poison: map[string]bool{}}
	return f
}

func (f *fate) birth(i int) {
	o := f.orders
	o.Seed = f.random.Uint64()
	f.processes[i] = start(f.t, o)
}

// live lets bad luck strike for some time, and then all come out.
func (f *fate) live(d time.Duration) {
	end := time.Now().Add(d)
	for checked := time.Now(); time.Now().Before(end); {
		elapse(time.Duration(f.random.ExpFloat64() * float64(luckEvery/luckSpeed)))
		f.endings(time.Now())
		f.strike()
		if time.Since(checked) > 2*time.Second && !f.busy["server"] {
			f.m.look(f.t, f.s)
			checked = time.Now()
		}
	}
	f.endings(end.Add(time.Hour))
	for _, p := range f.processes {
		p.kill()
	}
	file, err := f.s.file()
	require.NoError(f.t, err)
	defer func() { require.NoError(f.t, file.Close()) }()
	p := &childPublisher{orders: &orders{Publish: -1}, deliver: deliverTo(file, 20), say: &speaker{out: io.Discard}}
	f.s.drainRest(f.t, f.orders.Options.options(), p)
	f.m.look(f.t, f.s)
	f.m.complete(f.t, f.s)
	f.t.Logf("%d messages, %d poison, %d deliveries repeated, after %v", len(f.m.seen), len(f.m.poison), f.m.repeated, f.strokes)
}

// endings ends the strokes whose time is over.
func (f *fate) endings(now time.Time) {
	slices.SortFunc(f.ends, func(a, b ending) int { return a.at.Compare(b.at) })
	for len(f.ends) > 0 && !f.ends[0].at.After(now) {
		e := f.ends[0]
		f.ends = f.ends[1:]
		delete(f.busy, e.name)
		e.f()
	}
}

// until ends a stroke after a while, before which it does not strike again.
func (f *fate) until(name string, most time.Duration, end func()) {
	f.busy[name] = true
	f.ends = append(f.ends, ending{time.Now().Add(rand.N(most)), name, end})
}

// luckStrokes are what may happen, some more often than others.
var luckStrokes = []string{"kill", "kill", "kill", "freeze", "freeze", "pause", "long", "long", "cut", "cut", "hole", "half", "slow", "server"}

var lockers = []string{"freeze", "pause", "long"}

// strike does something bad, if it is not under way.
func (f *fate) strike() {
	t, ctx := f.t, context.WithoutCancel(f.t.Context())
	i := f.random.IntN(len(f.processes))
	p := f.processes[i]
	stroke := luckStrokes[f.random.IntN(len(luckStrokes))]
	network := slices.Contains([]string{"cut", "hole", "half", "slow"}, stroke)
	if f.proxy == nil && (network || stroke == "server") || f.busy[stroke] || f.busy["server"] && stroke != "kill" {
		return
	}
	if f.srv == nil && slices.ContainsFunc(lockers, func(s string) bool { return f.busy[s] }) && slices.Contains(lockers, stroke) {
		return // each may have the only lock, for which we would wait ourselves
	}
	switch stroke {
	case "kill":
		if f.frozen[i] {
			return
		}
		p.kill()
		f.birth(i)
	case "freeze":
		if f.frozen[i] {
			return
		}
		f.frozen[i] = true
		p.signal(t, syscall.SIGSTOP)
		f.until(stroke, 2*f.orders.Options.Lease, func() {
			f.frozen[i] = false
			p.signal(t, syscall.SIGCONT)
		})
	case "pause":
		box := f.s.box(t, outbox.Options{})
		require.NoError(t, box.Pause(ctx, f.s.db, "t"))
		f.until(stroke, 500*time.Millisecond, func() { require.NoError(t, box.Resume(ctx, f.s.db, "t")) })
	case "long":
		f.long(ctx)
	case "cut":
		f.proxy.Cut()
	case "hole":
		f.proxy.BlackHole()
		f.until(stroke, 2*f.orders.Options.Lease, f.proxy.Heal)
	case "half":
		f.proxy.HalfOpen()
		f.until(stroke, 2*f.orders.Options.Lease, f.proxy.Heal)
	case "slow":
		f.proxy.SetLatency(rand.N(20 * time.Millisecond))
		f.until(stroke, time.Second, func() { f.proxy.SetLatency(0) })
	case "server":
		f.endings(time.Now().Add(time.Hour)) // what would need it
		f.srv.Kill()
		f.until(stroke, time.Second, func() { f.srv.Restart(t) })
	}
	f.strokes[stroke]++
}

// long leaves a transaction open that has added, and one with a snapshot.
func (f *fate) long(ctx context.Context) {
	box := f.s.box(f.t, outbox.Options{})
	tx, err := f.s.db.BeginTx(ctx, nil)
	require.NoError(f.t, err)
	m, err := f.s.next(ctx, tx, -1)
	require.NoError(f.t, err)
	require.NoError(f.t, box.Add(ctx, tx, m))
	var held *sql.Tx
	most := 100 * time.Millisecond // all others wait
	if f.srv != nil {
		most = 2 * time.Second
		held, err = f.s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		require.NoError(f.t, err)
		run(f.t, held, `SELECT count(*) FROM committed`)
	}
	keep := f.random.IntN(2) == 0
	f.until("long", most, func() {
		if held != nil {
			_ = held.Rollback()
		}
		if keep {
			require.NoError(f.t, tx.Commit())
		} else {
			require.NoError(f.t, tx.Rollback())
		}
	})
}

// A luckModel knows what was delivered, and in which order it has to be.
type luckModel struct {
	read     int64 // of the file
	seen     map[string]bool
	next     map[string]int
	poison   map[string]bool // key and version
	repeated int
}

// look takes what was delivered since the last time.
func (m *luckModel) look(t *testing.T, s *site) {
	file, err := s.file()
	require.NoError(t, err)
	require.NoError(t, file.Close())
	text, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	fresh := text[m.read:]
	fresh = fresh[:bytes.LastIndexByte(fresh, '\n')+1]
	m.read += int64(len(fresh))
	for _, name := range s.names(t, `SELECT name FROM committed WHERE name LIKE '%poison'`) {
		m.poison[versionOf(name)] = true
	}
	var names []string
	for line := range strings.Lines(string(fresh)) {
		name := strings.TrimSpace(line)
		if m.seen[name] {
			m.repeated++
			continue
		}
		m.seen[name] = true
		names = append(names, name)
		m.first(t, name)
	}
	for chunk := range slices.Chunk(names, 500) {
		list := "'" + strings.Join(chunk, "','") + "'"
		require.Equal(t, len(chunk), s.count(t, `SELECT count(*) FROM committed WHERE name IN (`+list+`)`), "delivered and never committed")
	}
}

// first takes a first delivery: whatever has a smaller version was delivered
// before, or is poison.
func (m *luckModel) first(t *testing.T, name string) {
	require.False(t, isPoison(name), name)
	var key string
	var version int
	_, err := fmt.Sscan(name, &key, &version)
	require.NoError(t, err, name)
	if key == "-" {
		return
	}
	for m.next[key]++; m.next[key] < version && m.poison[fmt.Sprint(key, " ", m.next[key])]; m.next[key]++ {
	}
	require.Equal(t, m.next[key], version, "first deliveries of key %s are in order", key)
}

// versionOf is the key and the version of a name.
func versionOf(name string) string {
	fields := strings.Fields(name)
	return fields[0] + " " + fields[1]
}

// complete requires that nothing is lost.
func (m *luckModel) complete(t *testing.T, s *site) {
	poison := 0
	for _, name := range s.names(t, `SELECT name FROM committed`) {
		if isPoison(name) {
			poison++
			continue
		}
		require.True(t, m.seen[name], "%q was committed and is lost", name)
	}
	require.Equal(t, poison, s.count(t, `SELECT count(*) FROM outbox_dead`), "poison is dead, and nothing else")
	s.checkTables(t)
}
