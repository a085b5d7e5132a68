//go:build unix

package outbox_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// The child processes are this test binary, told by the environment to work
// instead of testing.
const (
	childDriver = "EVENKEEL_OUTBOX_CHILD_DRIVER"
	childFolder = "EVENKEEL_OUTBOX_CHILD_FOLDER"
)

func TestMain(m *testing.M) {
	if driver := os.Getenv(childDriver); driver != "" {
		if err := child(driver, os.Getenv(childFolder)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if raceEnabled {
		// A database written in Go is ten times slower under the race
		// detector, which has nothing to find in state machines that use one
		// goroutine. A flag on the command line still wins.
		_ = flag.Set("rapid.checks", "20")
	}
	os.Exit(m.Run())
}

const killKeys = 4

var killOptions = outbox.Options{
	Batch: 20, Lease: 200 * time.Millisecond, PollMin: time.Millisecond, PollMax: 20 * time.Millisecond,
	RetryBase: time.Millisecond, RetryMax: 10 * time.Millisecond, MaxAttempts: -1,
}

// child adds messages and drains until it is killed. It writes a byte to stdout
// for each commit and each delivery.
func child(driver, folder string) error {
	go func() { // the parent is gone when stdin ends, however it died
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	db, err := sql.Open(drivers[driver], dsn(filepath.Join(folder, "test.db")))
	if err != nil {
		return err
	}
	box, err := outbox.New(sqlite.Dialect{}, killOptions)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := box.Migrate(ctx, db); err != nil {
		return err
	}
	delivered, err := os.OpenFile(filepath.Join(folder, "delivered"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fail := make(chan error, 2)
	go func() { fail <- box.Run(ctx, db, deliverTo(delivered, os.Stdout)) }()
	go func() {
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for {
			if err := childAdd(ctx, db, box); err != nil {
				fail <- err
				return
			}
			box.Wake()
			_, _ = os.Stdout.WriteString(".")
			for { // a short queue, so that the end does not take long
				st, err := box.Stats(ctx, db)
				if err != nil {
					fail <- err
					return
				}
				if st.Ready+st.Waiting < 100 {
					break
				}
				<-pace.C
			}
		}
	}()
	return <-fail
}

// deliverTo appends the payload of each message to a file: one write a message,
// which a kill cannot cut in two. It fails now and then.
func deliverTo(f *os.File, progress io.Writer) outbox.Publisher {
	return outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
		if rand.IntN(10) == 0 {
			return errors.New("unlucky")
		}
		if _, err := f.Write(append(m.Payload, '\n')); err != nil {
			return err
		}
		_, err := io.WriteString(progress, ".")
		return err
	})
}

// childAdd runs one transaction: it gives a key its next version, notes it as
// committed, and adds the messages that tell about it. Or it rolls back. Each
// name is different, also when a version is given again after a rollback.
func childAdd(ctx context.Context, db *sql.DB, box *outbox.Outbox) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	key := rand.IntN(killKeys)
	for range 1 + rand.IntN(3) {
		var version int
		err := tx.QueryRowContext(ctx, `UPDATE versions SET version = version + 1 WHERE key = ? RETURNING version`, key).Scan(&version)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d %d %d", key, version, rand.Uint64())
		if _, err := tx.ExecContext(ctx, `INSERT INTO committed (name) VALUES (?)`, name); err != nil {
			return err
		}
		if err := box.Add(ctx, tx, outbox.Message{Topic: "t", Key: strconv.Itoa(key), Payload: []byte(name)}); err != nil {
			return err
		}
	}
	if rand.IntN(4) == 0 {
		return tx.Rollback()
	}
	return tx.Commit()
}

// TestKill kills and stops processes that add and drain, at random moments, and
// then looks for what was lost, invented or out of order.
func TestKill(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) { testKill(t, driver) })
	}
}

func testKill(t *testing.T, driver string) {
	rounds := 12
	if testing.Short() || raceEnabled {
		rounds = 4
	}
	folder := t.TempDir()
	db := open(t, driver, filepath.Join(folder, "test.db"))
	box, err := outbox.New(sqlite.Dialect{}, killOptions)
	require.NoError(t, err)
	require.NoError(t, box.Migrate(t.Context(), db))
	for _, query := range []string{
		`CREATE TABLE versions (key INTEGER PRIMARY KEY, version INTEGER NOT NULL)`,
		`CREATE TABLE committed (name TEXT PRIMARY KEY)`,
	} {
		_, err := db.ExecContext(t.Context(), query)
		require.NoError(t, err)
	}
	for key := range killKeys {
		_, err := db.ExecContext(t.Context(), `INSERT INTO versions (key, version) VALUES (?, 0)`, key)
		require.NoError(t, err)
	}

	children := [2]*process{start(t, driver, folder), start(t, driver, folder)}
	for range rounds {
		i := rand.IntN(2)
		c, other := children[i], children[1-i]
		c.wait(t, 1+rand.IntN(150))
		if rand.IntN(3) > 0 {
			c.kill()
			children[i] = start(t, driver, folder)
			continue
		}
		// A process that sleeps through its lease. It may hold the write lock
		// meanwhile, so the other one need not get anywhere.
		require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP))
		other.waitFor(1000, 2*killOptions.Lease)
		require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT))
	}
	children[0].kill()
	children[1].kill()

	// What is left is delivered by this process, after the lease has ended.
	file, err := os.OpenFile(filepath.Join(folder, "delivered"), os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error)
	go func() { ended <- box.Run(ctx, db, deliverTo(file, io.Discard)) }()
	tick := time.NewTicker(5 * time.Millisecond)
	for range tick.C {
		st, err := box.Stats(ctx, db)
		require.NoError(t, err, "draining does not end")
		if st.Ready+st.Waiting == 0 {
			break
		}
	}
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, file.Close())

	committed := map[string]bool{}
	rows, err := db.QueryContext(t.Context(), `SELECT name FROM committed`)
	require.NoError(t, err)
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		committed[name] = true
	}
	require.NoError(t, rows.Err())

	file, err = os.Open(filepath.Join(folder, "delivered"))
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	seen, again := map[string]bool{}, 0
	next := map[string]int{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name := lines.Text()
		require.True(t, committed[name], "%q was delivered and never committed", name)
		if seen[name] {
			again++
			continue
		}
		seen[name] = true
		key, rest, _ := strings.Cut(name, " ")
		version, _, _ := strings.Cut(rest, " ")
		next[key]++
		require.Equal(t, strconv.Itoa(next[key]), version, "first deliveries of key %s are in order", key)
	}
	for name := range committed {
		require.True(t, seen[name], "%q was committed and is lost", name)
	}
	t.Logf("%d messages, %d deliveries repeated, in %d kills and stops", len(committed), again, rounds)
}

// A process is a child.
type process struct {
	cmd      *exec.Cmd
	progress chan struct{}
	stderr   *strings.Builder
}

func start(t *testing.T, driver, folder string) *process {
	self, err := os.Executable()
	require.NoError(t, err)
	p := &process{cmd: exec.Command(self), progress: make(chan struct{}, 1<<20), stderr: new(strings.Builder)}
	p.cmd.Env = append(os.Environ(), childDriver+"="+driver, childFolder+"="+folder)
	p.cmd.Stderr = p.stderr
	_, err = p.cmd.StdinPipe() // ends with this process
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(p.kill)
	go func() {
		defer close(p.progress)
		for r := bufio.NewReader(out); ; {
			if _, err := r.ReadByte(); err != nil {
				return
			}
			p.progress <- struct{}{}
		}
	}()
	return p
}

// wait waits for n commits and deliveries.
func (p *process) wait(t *testing.T, n int) {
	if !p.waitFor(n, time.Minute) {
		p.kill()
		t.Fatalf("a child gets nowhere: %s", p.stderr)
	}
}

func (p *process) waitFor(n int, d time.Duration) bool {
	end := time.After(d)
	for range n {
		select {
		case _, ok := <-p.progress:
			if !ok {
				return false
			}
		case <-end:
			return false
		}
	}
	return true
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
