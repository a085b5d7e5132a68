package lease_test

import (
	"testing"

	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
)

// sqlChild opens a participant in another process. The arguments are the data
// source name and the table.
func sqlChild(name string) func([]string) (coalescetest.Participant, error) {
	return func(args []string) (coalescetest.Participant, error) {
		p, _, err := openSQL(databases[name], args[0], "", args[1], ttl)
		if err != nil {
			return coalescetest.Participant{}, err
		}
		return coalescetest.Participant{Lease: p.Lease, Put: p.Put, Get: p.Get}, nil
	}
}

// sqlProcesses are the tests that take other processes.
func sqlProcesses(t *testing.T, name string, d database, dsn string) {
	with := func(t *testing.T) (p []coalescetest.Participant, c *child) {
		for range 3 {
			s := d.process(t, dsn, "")
			p = append(p, coalescetest.Participant{Lease: s.Lease, Put: s.Put, Get: s.Get})
		}
		return p, holder(t, name, dsn, tableOf(t), "key")
	}
	t.Run("killed holder is succeeded", func(t *testing.T) {
		t.Parallel()
		p, c := with(t)
		killedHolderIsSucceeded(t, c, "key", p...)
	})
	t.Run("stopped holder is fenced", func(t *testing.T) {
		t.Parallel()
		p, c := with(t)
		stoppedHolderIsFenced(t, c, "key", p[0])
	})
	t.Run("killed at random", func(t *testing.T) {
		t.Parallel()
		s := d.process(t, dsn, "")
		killedAtRandom(t, coalescetest.Participant{Lease: s.Lease, Put: s.Put, Get: s.Get}, name, dsn, tableOf(t))
	})
}
