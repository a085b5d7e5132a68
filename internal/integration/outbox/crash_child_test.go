//go:build unix

package outbox_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A child is another process: this test binary, told by the environment to work
// instead of testing. It says on stdout, a line each, what it has done, and hears
// on stdin when to go on after a stop.
const childOrders = "EVENKEEL_OUTBOX_CHILD"

// orders are what a child is told.
type orders struct {
	Site    site
	Options childOptions
	Seed    uint64
	// Drain and Add are what it does, Add until so many messages wait.
	Drain, Add bool
	// Fail lets one delivery in so many fail. FailFirst lets that of each
	// message fail that has a key and the version 1, once.
	Fail      int
	FailFirst bool
	// Poison makes one message in so many one that no destination accepts.
	Poison int
	// Gate, if set, is where it stops, once. Publish stops it in a call of the
	// Publisher after so many messages, if not negative.
	Gate    *gate
	Publish int
	// Litestream replicates the file of the database to this folder instead.
	Litestream string
}

// childOptions are options in JSON.
type childOptions struct {
	Batch     int
	Lease     time.Duration
	Retention outbox.Retention
}

func (o childOptions) options() outbox.Options {
	return outbox.Options{
		Batch: o.Batch, Lease: o.Lease, Retention: o.Retention, PollMin: time.Millisecond, PollMax: 20 * time.Millisecond,
		RetryBase: time.Millisecond, RetryMax: 10 * time.Millisecond, MaxAttempts: -1,
	}
}

// What a child says.
const (
	saidAdded     = "added"
	saidDelivered = "delivered"
	saidStopped   = "stopped"
	saidLeased    = "leased" // and the number of buckets
)

// thorough asks for all of what takes minutes, for use at night and before a
// release. Otherwise a run takes a part at random.
var thorough = os.Getenv("EVENKEEL_THOROUGH") != ""

// some returns n of kinds at random, or all of them in a thorough run.
func some(n int, kinds ...string) []string {
	if thorough {
		return kinds
	}
	kinds = slices.Clone(kinds)
	rand.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	return kinds[:n]
}

// underRace skips what is about processes, servers and networks rather than
// goroutines. Those are in the conformance suite, and in the tests of the outbox
// in virtual time, which the race detector does see.
func underRace(t *testing.T) {
	if raceEnabled && !thorough {
		t.Skip("runs without the race detector, and with it if EVENKEEL_THOROUGH is set")
	}
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childOrders); text != "" {
		if err := beChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if !thorough {
		// Each check of a state machine is hundreds of transactions. A flag on
		// the command line still wins.
		_ = flag.Set("rapid.checks", "12")
		if raceEnabled {
			_ = flag.Set("rapid.checks", "5") // a database written in Go is ten times slower then
		}
	}
	_ = flag.Set("test.parallel", "6") // what is parallel here waits for leases to end
	os.Exit(m.Run())
}

func beChild(text string) error {
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	proceed := make(chan struct{})
	go func() { // the parent is gone when stdin ends, however it died
		if in := bufio.NewScanner(os.Stdin); in.Scan() {
			close(proceed)
			for in.Scan() {
			}
		}
		os.Exit(1)
	}()
	say := &speaker{out: os.Stdout}
	stop := func() {
		say.line(saidStopped)
		<-proceed
	}
	if o.Litestream != "" {
		return replicate(o.Site, o.Litestream, say)
	}
	var db *sql.DB
	var err error
	if o.Gate != nil {
		db, err = gated(o.Site.driver(), o.Site.DSN, *o.Gate, stop)
	} else {
		db, err = sql.Open(o.Site.driver(), o.Site.DSN)
	}
	if err != nil {
		return err
	}
	options := o.Options.options()
	options.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	options.Trace = &outbox.Trace{Leased: func(_ int64, buckets, _ int) { say.line(fmt.Sprint(saidLeased, " ", buckets)) }}
	box, err := outbox.New(o.Site.dialect(), options)
	if err != nil {
		return err
	}
	ctx := context.Background()
	fail := make(chan error, 1)
	if o.Drain {
		file, err := o.Site.file()
		if err != nil {
			return err
		}
		p := &childPublisher{orders: &o, deliver: deliverTo(file, o.Fail), say: say, stop: stop}
		go func() {
			for { // Run needs the database when it begins
				fmt.Fprintln(os.Stderr, "run:", box.Run(ctx, db, p))
				elapse(20 * time.Millisecond)
			}
		}()
	}
	if o.Add {
		go func() { fail <- childAdd(ctx, &o, db, box, say) }()
	}
	return <-fail
}

// isPoison reports whether no destination accepts the message of a name.
func isPoison(name string) bool { return strings.HasSuffix(name, poisonous) }

const poisonous = " poison"

// A speaker writes whole lines.
type speaker struct {
	mu  sync.Mutex
	out io.Writer
}

func (s *speaker) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.out, text+"\n")
}

type childPublisher struct {
	*orders
	deliver outbox.PublisherFunc
	say     *speaker
	stop    func()
	once    sync.Once
}

func (p *childPublisher) Publish(ctx context.Context, batch []outbox.Message) []error {
	errs := make([]error, len(batch))
	for i, m := range batch {
		if i == p.orders.Publish {
			p.once.Do(p.stop)
		}
		if p.FailFirst && m.Attempt == 1 && m.Key != "" && strings.HasPrefix(string(m.Payload), m.Key+" 1 ") {
			errs[i] = outbox.RetryAfter(fmt.Errorf("%s fails at first", m.Payload), 0)
			continue
		}
		if isPoison(string(m.Payload)) {
			errs[i] = outbox.Permanent(errors.New("poison"))
			continue
		}
		if errs[i] = p.deliver(ctx, m); errs[i] == nil {
			p.say.line(saidDelivered)
		}
	}
	return errs
}

// childAdd adds until it is killed. An error of the database is no reason to
// end: what was committed is in the database, whatever this process knows.
func childAdd(ctx context.Context, o *orders, db *sql.DB, box *outbox.Outbox, say *speaker) error {
	random := rand.New(rand.NewPCG(o.Seed, 1))
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for {
		<-pace.C
		keys := []int{random.IntN(siteKeys), -1}[:1+random.IntN(2)]
		site := o.Site
		site.poison = o.Poison > 0 && random.IntN(o.Poison) == 0
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second) // a connection may be dead
		err := site.add(bounded, db, box, random.IntN(4) > 0, 1+random.IntN(3), keys...)
		cancel()
		if err != nil {
			fmt.Fprintln(os.Stderr, "add:", err)
			continue
		}
		box.Wake()
		say.line(saidAdded)
		for { // a short queue, so that the end does not take long
			bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
			st, err := box.Stats(bounded, db)
			cancel()
			if err != nil {
				fmt.Fprintln(os.Stderr, "stats:", err)
			} else if st.Ready+st.Waiting < 100 {
				break
			}
			<-pace.C
		}
	}
}

// A process is a child.
type process struct {
	cmd   *exec.Cmd
	said  chan string
	in    io.Writer
	log   *lockedLog
	ended chan struct{}
}

// lockedLog keeps the end of what a child writes to stderr.
type lockedLog struct {
	mu   sync.Mutex
	text []byte
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text = append(l.text, b...); len(l.text) > 8000 {
		l.text = l.text[len(l.text)-4000:]
	}
	return len(b), nil
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// start starts a child. It is gone when t has ended, and when this process is.
func start(t testing.TB, o orders) *process {
	self, err := os.Executable()
	require.NoError(t, err)
	if o.Site.Kind == "mysql" {
		o.Site.DSN = patient(o.Site.DSN)
	}
	text, err := json.Marshal(o)
	require.NoError(t, err)
	p := &process{cmd: exec.Command(self), said: make(chan string, 1<<16), log: new(lockedLog), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childOrders+"="+string(text))
	p.cmd.Stderr = p.log
	in, err := p.cmd.StdinPipe()
	require.NoError(t, err)
	p.in = in
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.ended)
		defer close(p.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case p.said <- lines.Text():
			default: // nobody listens; there is more than enough
			}
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// hear waits for n lines that begin like this.
func (p *process) hear(t testing.TB, n int, prefix string) {
	t.Helper()
	if !p.heard(n, prefix, time.After(time.Minute)) {
		p.kill()
		require.FailNow(t, "a child does not say "+prefix, p.log.String())
	}
}

func (p *process) heard(n int, prefix string, end <-chan time.Time) bool {
	for n > 0 {
		select {
		case line, ok := <-p.said:
			if !ok {
				return false
			}
			if strings.HasPrefix(line, prefix) {
				n--
			}
		case <-end:
			return false
		}
	}
	return true
}

func (p *process) signal(t testing.TB, s syscall.Signal) {
	require.NoError(t, p.cmd.Process.Signal(s))
}

// proceed lets a child that has stopped at its gate go on.
func (p *process) proceed(t testing.TB) {
	_, err := io.WriteString(p.in, "go\n")
	require.NoError(t, err)
}

// kill is kill -9. The child has ended when it returns.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	_ = p.cmd.Wait() // again is an error, and harmless
}
