package coalescetest

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// ErrKilled is returned by the methods of a [Process] after Kill.
var ErrKilled = errors.New("coalescetest: the process was killed")

// A Process is the lease of a [Store] as one process uses it.
//
// A Process is safe for concurrent use by multiple goroutines.
type Process struct {
	store *Store
	dead  chan struct{} // closed by Kill

	// Guarded by Store.mu.
	grants map[*grant]struct{} // that have not ended
	resume chan struct{}       // not nil while paused; closed by Resume and Kill
	killed bool
}

var _ coalesce.Lease = (*Process)(nil)

// Pause stops the process, as SIGSTOP does or a virtual machine that moves: it
// renews nothing, notices nothing, and its calls wait until Resume, or until
// their context ends. Code of the test that runs on behalf of the process is not
// stopped. Pausing again does nothing.
func (p *Process) Pause() {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if p.resume == nil && !p.killed {
		p.resume = make(chan struct{})
	}
}

// Resume lets a paused process go on. It notices at once what it has lost.
func (p *Process) Resume() {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if p.resume == nil {
		return
	}
	close(p.resume)
	p.resume = nil
	for g := range p.grants {
		g.renewal.Reset(0)
	}
}

// Kill ends the process: it renews nothing any more, and its calls return
// ErrKilled, those too that wait. Lost of its grants is closed, so that code of
// the test that stands for its work can end, but the store knows nothing of it:
// the leases end with their time to live.
func (p *Process) Kill() {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if p.killed {
		return
	}
	p.killed = true
	close(p.dead)
	if p.resume != nil {
		close(p.resume)
		p.resume = nil
	}
	for g := range p.grants {
		g.end()
	}
}

// enter locks the store when the process runs, and waits while it is paused. With
// an error the store is not locked.
func (p *Process) enter(ctx context.Context) error {
	for {
		p.store.mu.Lock()
		resume := p.resume
		switch {
		case p.killed:
			p.store.mu.Unlock()
			return ErrKilled
		case ctx.Err() != nil:
			p.store.mu.Unlock()
			return ctx.Err()
		case resume == nil:
			return nil
		}
		p.store.mu.Unlock()
		select {
		case <-resume:
		case <-ctx.Done():
		}
	}
}

// Acquire is that of [coalesce.Lease].
func (p *Process) Acquire(ctx context.Context, key string) (coalesce.Grant, error) {
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	s := p.store
	defer s.mu.Unlock()
	e := s.entry(key)
	if e.held() {
		return nil, coalesce.ErrHeld
	}
	e.token++
	g := &grant{process: p, entry: e, token: e.token, lost: make(chan struct{})}
	e.holder, e.until, e.freed = g, time.Now().Add(s.ttl), make(chan struct{})
	g.renewal = time.AfterFunc(s.ttl/3, g.renew)
	p.grants[g] = struct{}{}
	return g, nil
}

// Wait is that of [coalesce.Lease].
func (p *Process) Wait(ctx context.Context, key string) error {
	for {
		if err := p.enter(ctx); err != nil {
			return err
		}
		e := p.store.entry(key)
		held, freed, left := e.held(), e.freed, time.Until(e.until)
		p.store.mu.Unlock()
		if !held {
			return nil
		}
		expiry := time.NewTimer(left)
		select {
		case <-expiry.C:
		case <-freed:
		case <-ctx.Done():
		case <-p.dead:
		}
		expiry.Stop()
	}
}

// Put stores the value of key, if the process holds the lease by this token.
// Otherwise it returns coalesce.ErrFenced, and changes nothing.
func (p *Process) Put(ctx context.Context, key string, token coalesce.Token, value []byte) error {
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.store.mu.Unlock()
	e := p.store.entry(key)
	if !e.held() || e.token != token {
		return coalesce.ErrFenced
	}
	e.value, e.stored = bytes.Clone(value), true
	return nil
}

// Get returns the value of key, and whether there is one.
func (p *Process) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := p.enter(ctx); err != nil {
		return nil, false, err
	}
	defer p.store.mu.Unlock()
	e := p.store.entry(key)
	return bytes.Clone(e.value), e.stored, nil
}
