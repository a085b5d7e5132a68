package coalescetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// A Store is a place in memory where processes keep leases and results, with
// the guarantees of a perfect server.
//
// A Store is safe for concurrent use by multiple goroutines.
type Store struct {
	ttl time.Duration

	mu   sync.Mutex // guards all that belongs to the store, processes and grants too
	keys map[string]*entry
}

// An entry is what the store knows of a key.
type entry struct {
	holder *grant // nil when released
	until  time.Time
	freed  chan struct{} // closed when the holder releases
	token  coalesce.Token
	value  []byte
	stored bool
}

// NewStore returns an empty store whose leases end ttl after their last
// renewal. It panics if ttl is not positive.
func NewStore(ttl time.Duration) *Store {
	if ttl <= 0 {
		panic(fmt.Sprintf("coalescetest: NewStore: ttl is %v, want more than 0", ttl))
	}
	return &Store{ttl: ttl, keys: map[string]*entry{}}
}

// Process returns a new process that uses the store. It runs.
func (s *Store) Process() *Process {
	return &Process{store: s, grants: map[*grant]struct{}{}, dead: make(chan struct{})}
}

// entry returns the entry of a key. The store must be locked.
func (s *Store) entry(key string) *entry {
	e := s.keys[key]
	if e == nil {
		e = &entry{}
		s.keys[key] = e
	}
	return e
}

// held reports whether somebody holds the key now. The store must be locked.
func (e *entry) held() bool { return e.holder != nil && time.Now().Before(e.until) }

// A grant is a lease that a process holds, or that it has lost without having
// noticed.
type grant struct {
	process *Process
	entry   *entry
	token   coalesce.Token
	lost    chan struct{}

	// Guarded by Store.mu.
	renewal  *time.Timer
	ended    bool // lost is closed
	released bool
}

func (g *grant) Token() coalesce.Token { return g.token }
func (g *grant) Lost() <-chan struct{} { return g.lost }

// renew is what the process does in the background each third of the time to
// live, while it runs.
func (g *grant) renew() {
	s := g.process.store
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case g.ended || g.process.resume != nil:
	case g.entry.holder == g && g.entry.held():
		g.entry.until = time.Now().Add(s.ttl)
		g.renewal.Reset(s.ttl / 3)
	default:
		g.end()
	}
}

// end closes lost, once. The store must be locked.
func (g *grant) end() {
	if !g.ended {
		g.ended = true
		close(g.lost)
		g.renewal.Stop()
		delete(g.process.grants, g)
	}
}

func (g *grant) Release(ctx context.Context) error {
	if err := g.process.enter(ctx); err != nil {
		return err
	}
	s := g.process.store
	defer s.mu.Unlock()
	if g.released {
		return nil
	}
	g.released = true
	g.end()
	e := g.entry
	if e.holder != g || !e.held() {
		return coalesce.ErrFenced
	}
	e.holder = nil
	close(e.freed)
	return nil
}
