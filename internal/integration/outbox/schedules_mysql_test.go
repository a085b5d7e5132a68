//go:build unix

package outbox_test

import (
	"bytes"
	"os/exec"
	"testing"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
)

// TestSchedulesOfMariaDB runs schedules that need databases of their own.
func TestSchedulesOfMariaDB(t *testing.T) {
	underRace(t)
	t.Setenv("EVENKEEL_MYSQL_DSN", testserver.MySQLDSN(t))
	for name, schedule := range map[string]func(*testing.T, *site){
		"ForeignTransaction": foreignTransactionOfMariaDB,
		"DumpAndRestore":     dumpAndRestoreOfMariaDB,
	} {
		t.Run(name, func(t *testing.T) { schedule(t, ownMariaDB(t)) })
	}
}

func ownMariaDB(t testing.TB) *site {
	s := &site{Kind: "mysql", DSN: testserver.MySQLDSN(t), Folder: t.TempDir()}
	s.setUp(t)
	return s
}

func foreignTransactionOfMariaDB(t *testing.T, s *site) {
	box := s.box(t, outbox.Options{})
	other := ownMariaDB(t)
	foreign, here := other.begin(t, nil), s.begin(t, nil)
	addNamed(t, foreign, other.box(t, outbox.Options{}), "k", "foreign")
	run(t, here, `UPDATE versions SET version = 7 WHERE k = 7`)
	addNamed(t, here, box, "mine", "not yet")
	for range 3 {
		tx := s.begin(t, nil)
		addNamed(t, tx, box, "k", "mine")
		require.NoError(t, tx.Commit())
		require.Equal(t, []string{"mine"}, s.drain(t, box))
	}
	require.NoError(t, here.Rollback())
	require.NoError(t, foreign.Rollback())
}

func dumpAndRestoreOfMariaDB(t *testing.T, s *site) {
	s.addSome(t, 2)
	file, err := s.file()
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	_, err = s.box(t, matrixOptions.options()).Drain(t.Context(), s.db, deliverTo(file, 3)) // some wait now
	require.NoError(t, err)
	s.addSome(t, 1)
	waiting := s.count(t, `SELECT count(*) FROM outbox_waiting`)

	client := func(program string, s *site, args ...string) *exec.Cmd {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skip(program + " is not there: apt-get install mariadb-client")
		}
		c, err := mysqldriver.ParseDSN(s.DSN)
		require.NoError(t, err)
		host, port, ok := bytes.Cut([]byte(c.Addr), []byte(":"))
		require.True(t, ok, c.Addr)
		args = append([]string{"--no-defaults", "--protocol=tcp", "--host=" + string(host), "--port=" + string(port), "--user=" + c.User, "--password=" + c.Passwd}, args...)
		return exec.CommandContext(t.Context(), path, append(args, c.DBName)...)
	}
	text, err := client("mariadb-dump", s, "--single-transaction").Output()
	require.NoError(t, err)
	copied := &site{Kind: "mysql", DSN: testserver.MySQLDSN(t), Folder: s.Folder}
	copied.reopen(t)
	restore := client("mariadb", copied)
	restore.Stdin = bytes.NewReader(text)
	out, err := restore.CombinedOutput()
	require.NoError(t, err, string(out))

	require.Equal(t, waiting, copied.count(t, `SELECT count(*) FROM outbox_waiting`))
	copied.addSome(t, 1) // ids go on behind those of the dump
	copied.drainRest(t, matrixOptions.options(), deliverTo(file, 0))
	require.Zero(t, copied.check(t).repeated)
}
