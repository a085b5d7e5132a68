//go:build unix

package testserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// PostgresOptions are the knobs of [StartPostgres].
type PostgresOptions struct {
	// Durable keeps fsync and full_page_writes on. Without it the server is faster,
	// loses nothing in a Kill, and would not survive a power cut.
	Durable bool

	// LogicalWAL sets wal_level to logical, for logical replication.
	LogicalWAL bool

	// Settings are further settings, as in postgresql.conf.
	Settings map[string]string
}

// Postgres is a private PostgreSQL server.
type Postgres struct {
	*Process
	Port int

	bin, dir string // of the programs, and of data, socket and log
	user     *syscall.Credential
	settings map[string]string
}

// StartPostgres makes a database cluster and starts a server on it. The user is
// postgres, without a password. It takes about a second.
func StartPostgres(t testing.TB, o PostgresOptions) *Postgres {
	t.Helper()
	p := newPostgres(t)
	run(t, p.user, p.dir, filepath.Join(p.bin, "initdb"), "-D", p.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8",
		"--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=1")
	p.settings = map[string]string{
		"listen_addresses": "127.0.0.1", "unix_socket_directories": p.dir, "max_connections": "200",
		"shared_buffers": "32MB", "wal_keep_size": "64MB", "max_prepared_transactions": "20", "log_min_messages": "warning",
	}
	if o.LogicalWAL {
		p.settings["wal_level"] = "logical"
	}
	if !o.Durable {
		// Not synchronous_commit, which would lose the last commits in a Kill.
		maps.Copy(p.settings, map[string]string{"fsync": "off", "full_page_writes": "off"})
	}
	maps.Copy(p.settings, o.Settings)
	p.Process, p.Port = launchOnFreePort(t, func(port int) (*Process, error) { return p.launch(t, port) })
	return p
}

func newPostgres(t testing.TB) *Postgres {
	t.Helper()
	postgres, ok := program("postgres", "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
	if !ok {
		missing(t, "PostgreSQL", "apt-get install postgresql, or brew install postgresql@17")
	}
	// A link in PATH may lead to the folder, and pg_basebackup be only there.
	if resolved, err := filepath.EvalSymlinks(postgres); err == nil {
		postgres = resolved
	}
	u := serverUser(t, "postgres")
	return &Postgres{bin: filepath.Dir(postgres), dir: tempDir(t, u), user: u}
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *Postgres) launch(t testing.TB, port int) (*Process, error) {
	args := []string{"-D", p.data(), "-p", strconv.Itoa(port)}
	for name, value := range p.settings {
		args = append(args, "-c", name+"="+value)
	}
	return launch(t, spec{
		bin: filepath.Join(p.bin, "postgres"), args: args, dir: p.dir, as: p.user,
		stop:  syscall.SIGQUIT, // "immediate": no checkpoint, but it gives its shared memory back
		ready: func() error { return pingPostgres(port) },
	})
}

// DSN is the address of the server's database postgres.
func (p *Postgres) DSN() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", p.Port)
}

// Addr is the server's host and port, for a [Proxy] before it.
func (p *Postgres) Addr() string { return addr(p.Port) }

// Restart starts the server again after Stop or Kill, on the same port and data.
func (p *Postgres) Restart(t testing.TB) {
	t.Helper()
	p.Process = relaunch(t, func() (*Process, error) { return p.launch(t, p.Port) })
}

// StartReplica starts a standby that streams from p, under a name that
// synchronous_standby_names of p may use. Set that only when the replica is there:
// commits wait for it.
func (p *Postgres) StartReplica(t testing.TB, name string) *Postgres {
	t.Helper()
	r := newPostgres(t)
	run(t, r.user, r.dir, filepath.Join(r.bin, "pg_basebackup"), "-D", r.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-d", fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=%s", p.Port, name))
	r.settings = maps.Clone(p.settings)
	r.settings["unix_socket_directories"] = r.dir
	r.Process, r.Port = launchOnFreePort(t, func(port int) (*Process, error) { return r.launch(t, port) })
	return r
}

// Promote makes a standby a primary, and returns when it is one.
func (p *Postgres) Promote(t testing.TB) {
	t.Helper()
	run(t, p.user, p.dir, filepath.Join(p.bin, "pg_ctl"), "promote", "-w", "-D", p.data())
}

// Query runs SQL through psql and returns the rows as text, columns apart by "|".
func (p *Postgres) Query(t testing.TB, sql string) string {
	t.Helper()
	return run(t, nil, p.dir, filepath.Join(p.bin, "psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, p.DSN())
}

// pingPostgres speaks as much of the protocol as it takes to know that the server
// accepts sessions.
func pingPostgres(port int) error {
	c, err := net.DialTimeout("tcp", addr(port), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	const version3 = 3 << 16
	body := append(binary.BigEndian.AppendUint32(nil, version3), "user\x00postgres\x00database\x00postgres\x00\x00"...)
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)); err != nil {
		return err
	}
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		return err
	}
	if kind[0] != 'R' { // an 'E' says that it is starting up
		return errors.New("not accepting connections yet")
	}
	_, _ = c.Write([]byte{'X', 0, 0, 0, 4}) // a polite end, or the log complains
	return nil
}
