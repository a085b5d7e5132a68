//go:build unix

package testserver

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// MariaDBOptions are the knobs of [StartMariaDB].
type MariaDBOptions struct {
	// Durable flushes the log to the disk at each commit. Without it the server is
	// faster, loses nothing in a Kill, and would not survive a power cut.
	Durable bool

	// Args are further arguments of mariadbd.
	Args []string
}

// MariaDB is a private MariaDB server.
type MariaDB struct {
	*Process
	Port int

	bin, dir string
	user     *syscall.Credential
	args     []string
}

// StartMariaDB makes a data folder and starts a server on it. The user is root,
// without a password, and there is an empty database test. It takes about a second.
func StartMariaDB(t testing.TB, o MariaDBOptions) *MariaDB {
	t.Helper()
	bin, ok1 := program("mariadbd", "/usr/sbin", "/usr/libexec", "/opt/homebrew/opt/mariadb/bin")
	install, ok2 := program("mariadb-install-db", "/usr/bin", "/opt/homebrew/opt/mariadb/bin")
	if !ok1 || !ok2 {
		missing(t, "MariaDB", "apt-get install mariadb-server, or brew install mariadb")
	}
	u := serverUser(t, "mysql")
	m := &MariaDB{bin: bin, dir: tempDir(t, u), user: u}
	data := filepath.Join(m.dir, "data")
	run(t, u, m.dir, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal",
		"--skip-name-resolve", "--skip-log-bin", "--innodb-log-file-size=8M", "--tmpdir="+m.dir)
	m.args = []string{
		"--no-defaults", "--datadir=" + data, "--socket=" + m.socket(), "--pid-file=" + filepath.Join(m.dir, "pid"),
		"--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M",
		"--tmpdir=" + m.dir,        // a server that starts removes the temporary tables of others in /tmp
		"--innodb-fast-shutdown=2", // no merge of buffers at the end; the log is enough
	}
	if !o.Durable {
		m.args = append(m.args, "--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--innodb-flush-method=nosync")
	}
	m.args = append(m.args, o.Args...)
	m.Process, m.Port = launchOnFreePort(t, func(port int) (*Process, error) { return m.launch(t, port) })
	return m
}

func (m *MariaDB) socket() string { return filepath.Join(m.dir, "s") }

func (m *MariaDB) launch(t testing.TB, port int) (*Process, error) {
	args := append(m.args[:len(m.args):len(m.args)], "--port="+strconv.Itoa(port))
	return launch(t, spec{
		bin: m.bin, args: args, dir: m.dir, as: m.user, stop: syscall.SIGTERM,
		ready: func() error { return pingMariaDB(port) },
	})
}

// DSN is the address of the server's database test, as the driver
// go-sql-driver/mysql takes it.
func (m *MariaDB) DSN() string { return fmt.Sprintf("root@tcp(%s)/test", m.Addr()) }

// Addr is the server's host and port, for a [Proxy] before it.
func (m *MariaDB) Addr() string { return addr(m.Port) }

// Restart starts the server again after Stop or Kill, on the same port and data.
func (m *MariaDB) Restart(t testing.TB) {
	t.Helper()
	m.Process = relaunch(t, func() (*Process, error) { return m.launch(t, m.Port) })
}

// Query runs SQL through the mariadb client and returns the rows as text, columns
// apart by tabs.
func (m *MariaDB) Query(t testing.TB, sql string) string {
	t.Helper()
	client, ok := program("mariadb", filepath.Dir(m.bin))
	if !ok {
		missing(t, "the mariadb client", "apt-get install mariadb-client")
	}
	return run(t, nil, m.dir, client, "--no-defaults", "--socket="+m.socket(), "--user=root", "--batch", "--skip-column-names", "--execute="+sql, "test")
}

// pingMariaDB waits for the greeting that the server sends first.
func pingMariaDB(port int) error {
	c, err := net.DialTimeout("tcp", addr(port), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	var greeting [5]byte // three of length, one of sequence, the protocol's version
	if _, err := io.ReadFull(c, greeting[:]); err != nil {
		return err
	}
	if greeting[4] != 10 {
		return fmt.Errorf("greeting %v, expected protocol version 10", greeting)
	}
	return nil
}
