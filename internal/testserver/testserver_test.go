//go:build unix

package testserver_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
)

func TestPostgresSurvivesKillAndForgetsNothing(t *testing.T) {
	t.Parallel()
	pg := testserver.StartPostgres(t, testserver.PostgresOptions{})
	pg.Query(t, "CREATE TABLE t AS SELECT 42 AS n")
	pg.Kill()
	require.Error(t, dial(pg.Addr()), "it is gone")
	pg.Restart(t)
	require.Equal(t, "42\n", pg.Query(t, "SELECT n FROM t"))
	pg.Stop()
	require.Error(t, dial(pg.Addr()))
	pg.Kill() // harmless
}

func TestPostgresReplicaStreamsAndIsPromoted(t *testing.T) {
	t.Parallel()
	pg := testserver.StartPostgres(t, testserver.PostgresOptions{LogicalWAL: true})
	require.Equal(t, "logical\n", pg.Query(t, "SHOW wal_level"))
	replica := pg.StartReplica(t, "replica1")
	require.Equal(t, "t\n", replica.Query(t, "SELECT pg_is_in_recovery()"))
	require.NotEqual(t, pg.Port, replica.Port)

	// With remote_apply a commit returns when the replica shows it.
	pg.Query(t, "ALTER SYSTEM SET synchronous_standby_names = 'replica1'")
	pg.Query(t, "SELECT pg_reload_conf()")
	pg.Query(t, "SET synchronous_commit = 'remote_apply'; CREATE TABLE t AS SELECT 7 AS n")
	pg.Kill()
	replica.Promote(t)
	replica.Query(t, "INSERT INTO t VALUES (8)")
	require.Equal(t, "7\n8\n", replica.Query(t, "SELECT n FROM t ORDER BY n"))
}

func TestMariaDBSurvivesKill(t *testing.T) {
	t.Parallel()
	m := testserver.StartMariaDB(t, testserver.MariaDBOptions{})
	m.Query(t, "CREATE TABLE t (n INT PRIMARY KEY)")
	m.Query(t, "INSERT INTO t VALUES (42)")
	m.Kill()
	require.Error(t, dial(m.Addr()))
	m.Restart(t)
	require.Equal(t, "42\n", m.Query(t, "SELECT n FROM t"))
}

func TestRedisIsEmptyAfterKill(t *testing.T) {
	t.Parallel()
	r := testserver.StartRedis(t)
	require.Equal(t, "OK", r.Do(t, "SET", "k", "a value\r\nof two lines"))
	require.Equal(t, "a value\r\nof two lines", r.Do(t, "GET", "k"))
	r.Kill()
	require.Error(t, dial(r.Addr()))
	r.Restart(t)
	require.Empty(t, r.Do(t, "GET", "k"))
}

func TestRedisClusterOwnsEverySlot(t *testing.T) {
	t.Parallel()
	c := testserver.StartRedisCluster(t)
	require.Len(t, c.Addrs(), 3)
	for _, n := range c.Nodes {
		require.Contains(t, n.Do(t, "CLUSTER", "INFO"), "cluster_slots_ok:16384")
	}
	c.Nodes[0].Kill()
	require.Error(t, dial(c.Addrs()[0]))
	require.NoError(t, dial(c.Addrs()[1]))
}

func TestPauseFreezesAndResumeThaws(t *testing.T) {
	t.Parallel()
	r := testserver.StartRedis(t)
	r.Pause()
	c, err := net.Dial("tcp", r.Addr()) // the kernel accepts
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("PING\r\n"))
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = c.Read(make([]byte, 16))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	r.Resume()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+PONG\r\n", line)
}

// A session of PostgreSQL is a process of its own, which must not go on alone.
func TestPauseAndKillReachASessionThatIsOpen(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("children are found in /proc")
	}
	pg := testserver.StartPostgres(t, testserver.PostgresOptions{})
	c, err := net.Dial("tcp", pg.Addr())
	require.NoError(t, err)
	defer c.Close()
	query := func(sql string) {
		_, err := fmt.Fprintf(c, "Q%s%s\x00", binary.BigEndian.AppendUint32(nil, uint32(len(sql)+5)), sql)
		require.NoError(t, err)
	}
	const ready = "Z\x00\x00\x00\x05I" // the end of each answer
	answer := func() (all string, err error) {
		for buf := make([]byte, 4096); !strings.HasSuffix(all, ready); {
			n, err := c.Read(buf)
			if all += string(buf[:n]); err != nil {
				return all, err
			}
		}
		return all, nil
	}
	_, err = c.Write([]byte("\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"))
	require.NoError(t, err)
	_, err = answer()
	require.NoError(t, err)

	pg.Pause()
	query("SELECT 1")
	require.NoError(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err = answer()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	pg.Resume()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = answer()
	require.NoError(t, err)

	query("DO $$ BEGIN LOOP END LOOP; END $$") // too busy to notice that the server has gone
	pg.Kill()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = answer()
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Error(t, err)
}

func TestNATSKeepsItsPortOverARestart(t *testing.T) {
	t.Parallel()
	n := testserver.StartNATS(t)
	url := n.URL()
	address := strings.TrimPrefix(url, "nats://")
	require.Contains(t, natsInfo(t, address), `"jetstream":true`)
	n.Stop()
	require.Error(t, dial(address))
	n.Restart(t)
	require.Equal(t, url, n.URL())
	require.Contains(t, natsInfo(t, address), `"jetstream":true`)
}

// natsInfo is the line that a NATS server greets with.
func natsInfo(t *testing.T, address string) string {
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	return line
}

func TestAMQPURLAnswers(t *testing.T) {
	t.Parallel()
	require.True(t, strings.HasPrefix(testserver.AMQPURL(t), "amqp"))
}

// The variables name one of our own private servers, which stands for one that runs
// already. Each use gets a database of its own, which is gone afterwards.
func TestAnExistingServerGivesEachTestItsOwnDatabase(t *testing.T) {
	pg := testserver.StartPostgres(t, testserver.PostgresOptions{})
	maria := testserver.StartMariaDB(t, testserver.MariaDBOptions{})
	redis := testserver.StartRedis(t)
	nats := testserver.StartNATS(t)
	t.Setenv("EVENKEEL_POSTGRES_DSN", pg.DSN())
	t.Setenv("EVENKEEL_MYSQL_DSN", maria.DSN()+"?parseTime=true")
	t.Setenv("EVENKEEL_REDIS_ADDR", redis.Addr())
	t.Setenv("EVENKEEL_NATS_URL", nats.URL())

	const pgCount = "SELECT count(*) FROM pg_database WHERE datname LIKE 'evenkeel%'"
	const mariaCount = "SELECT count(*) FROM information_schema.schemata WHERE schema_name LIKE 'evenkeel%'"
	var dsns []string
	t.Run("used", func(t *testing.T) {
		dsns = append(dsns, testserver.PostgresDSN(t), testserver.PostgresDSN(t), testserver.MySQLDSN(t), testserver.MySQLDSN(t))
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(dsns))), 4, "%v", dsns)
		require.True(t, strings.HasSuffix(dsns[3], "?parseTime=true"), dsns[3])
		require.Equal(t, "2\n", pg.Query(t, pgCount))
		require.Equal(t, "2\n", maria.Query(t, mariaCount))
		for want := 1; want <= 2; want++ {
			address, db := testserver.RedisAddr(t)
			require.Equal(t, redis.Addr(), address)
			require.Equal(t, want, db)
		}
		require.Equal(t, nats.URL(), testserver.NATSURL(t))
	})
	require.Equal(t, "0\n", pg.Query(t, pgCount))
	require.Equal(t, "0\n", maria.Query(t, mariaCount))
	require.Equal(t, "0", redis.Do(t, "DBSIZE"))
}

func TestWithoutVariablesTheServersArePrivate(t *testing.T) {
	for _, name := range []string{"POSTGRES_DSN", "MYSQL_DSN", "REDIS_ADDR", "NATS_URL"} {
		t.Setenv("EVENKEEL_"+name, "")
	}
	address, db := testserver.RedisAddr(t)
	require.Zero(t, db)
	require.NoError(t, dial(address))
	require.NoError(t, dial(strings.TrimPrefix(testserver.NATSURL(t), "nats://")))
	require.Contains(t, testserver.PostgresDSN(t), "127.0.0.1")
	require.Contains(t, testserver.MySQLDSN(t), "127.0.0.1")
}

func dial(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err
}

// The tests below run this test program again, as a child that has servers and ends
// in a bad way.

const childEnv = "EVENKEEL_TESTSERVER_CHILD"

// TestChild is that child. It prints its servers and folders and waits.
func TestChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("runs as a child of the other tests")
	}
	end := os.Getenv(childEnv)
	if end == "start" { // it is killed in the middle of what follows
		fmt.Println("ready")
	}
	if end == "start" || end == "SIGKILL" { // the hardest case has one of everything
		pg := testserver.StartPostgres(t, testserver.PostgresOptions{})
		replica := pg.StartReplica(t, "r")
		pg.Pause()
		fmt.Println("pid", pg.PID())
		fmt.Println("pid", replica.PID())
		fmt.Println("pid", testserver.StartMariaDB(t, testserver.MariaDBOptions{}).PID())
		for _, n := range testserver.StartRedisCluster(t).Nodes {
			fmt.Println("pid", n.PID())
		}
		testserver.StartNATS(t)
	}
	fmt.Println("pid", testserver.StartRedis(t).PID())
	if end == "SIGTERM" || end == "pass" { // one that is too busy to hear that it should end
		busy := testserver.StartRedis(t, "--lua-time-limit", "1000000")
		c, err := net.Dial("tcp", busy.Addr())
		require.NoError(t, err)
		_, err = c.Write([]byte("EVAL \"while true do end\" 0\r\n"))
		require.NoError(t, err)
		fmt.Println("pid", busy.PID())
	}
	frozen := testserver.StartRedis(t)
	frozen.Pause()
	fmt.Println("pid", frozen.PID())
	fmt.Println("ready")
	switch end {
	case "panic":
		panic("as told")
	case "fail":
		t.Fatal("as told")
	case "pass":
	default:
		select {} // until we are killed
	}
}

func TestNothingIsLeftHoweverTheTestProcessEnds(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"pass", "fail", "panic", "SIGKILL", "SIGTERM", "SIGINT", "start"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			temp := t.TempDir()
			require.NoError(t, os.Chmod(temp, 0o777)) // other users' servers have folders in it
			for dir := temp; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
				require.NoError(t, os.Chmod(dir, 0o777))
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
			cmd.Env = append(os.Environ(), childEnv+"="+end, "TMPDIR="+temp)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			cmd.Stderr = cmd.Stdout
			require.NoError(t, cmd.Start())

			var pids []int
			var log strings.Builder
			ready := false
			lines := bufio.NewScanner(out)
			for !ready && lines.Scan() {
				fmt.Fprintln(&log, lines.Text())
				if pid, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
					n, err := strconv.Atoi(pid)
					require.NoError(t, err)
					pids = append(pids, n)
				}
				ready = lines.Text() == "ready"
				if strings.Contains(lines.Text(), " is missing: ") {
					_ = cmd.Wait()
					t.Skip(strings.TrimSpace(lines.Text()))
				}
			}
			require.True(t, ready, log.String())
			signals := map[string]syscall.Signal{
				"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT, "start": syscall.SIGKILL,
			}
			if end == "start" {
				missing := make(chan string, 1)
				go func() {
					for lines.Scan() {
						if strings.Contains(lines.Text(), " is missing: ") {
							missing <- strings.TrimSpace(lines.Text())
						}
					}
				}()
				require.Eventually(t, func() bool {
					found, err := filepath.Glob(filepath.Join(temp, "*", "data", "*"))
					return len(missing) > 0 || err == nil && len(found) > 0
				}, time.Minute, time.Millisecond, "initdb is at work")
				if len(missing) > 0 {
					_ = cmd.Wait()
					t.Skip(<-missing)
				}
			} else {
				require.GreaterOrEqual(t, len(pids), 2)
			}
			if signal, ok := signals[end]; ok {
				require.NoError(t, syscall.Kill(-cmd.Process.Pid, signal)) // the group, as a terminal does
			}
			if err := cmd.Wait(); end == "pass" {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
			}
			require.Eventually(t, func() bool {
				left, err := os.ReadDir(temp)
				return err == nil && len(left) == 0 && !slices.ContainsFunc(pids, alive) && !inUse(temp)
			}, 30*time.Second, 20*time.Millisecond, "servers %v, folder %s", pids, temp)
		})
	}
}

// alive reports whether there is a process with that number that is more than a
// zombie, which is only waiting for its parent to notice.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err != nil && !os.IsNotExist(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// inUse reports whether any process has that folder in its command or works in it.
func inUse(folder string) bool {
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is sound
	return slices.ContainsFunc(commands, func(path string) bool {
		command, _ := os.ReadFile(path) // nothing, if it has ended meanwhile
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
		return strings.Contains(string(command)+cwd, folder)
	})
}

func TestAMissingProgramSkipsOrFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ require, want string }{{"", "SKIP"}, {"1", "FAIL"}} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMissingChild$", "-test.v")
		cmd.Env = append(os.Environ(), childEnv+"=missing", "PATH=/nonexistent", "EVENKEEL_REQUIRE="+c.require)
		out, err := cmd.CombinedOutput()
		require.Equal(t, c.want == "FAIL", err != nil, string(out))
		require.Contains(t, string(out), "--- "+c.want)
		require.Contains(t, string(out), "apt-get install redis-server")
	}
}

func TestMissingChild(t *testing.T) {
	if os.Getenv(childEnv) != "missing" {
		t.Skip("runs as a child of another test")
	}
	testserver.StartRedis(t)
}
