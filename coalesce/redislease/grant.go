package redislease

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/internal/hold"
)

// A grant is a lease that this process holds or held.
type grant struct {
	lease    *Lease
	names    names
	owner    string // differs from every other grant's, also after Redis lost its data
	token    coalesce.Token
	hold     *hold.Hold
	released atomic.Bool
}

func (g *grant) Token() coalesce.Token { return g.token }
func (g *grant) Lost() <-chan struct{} { return g.hold.Lost() }

// renew asks for another time to live. A try may take a third of it: an answer
// that does not come is not coming, and another connection may be better.
func (g *grant) renew(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, g.lease.ttl/3)
	defer cancel()
	n, err := g.lease.scripts.renew.Exec(ctx, g.lease.client, []string{g.names.lease, g.names.fence},
		[]string{g.owner, millis(g.lease.ttl), millis(fenceTTL)}).AsInt64()
	return n == 1, err
}

func (g *grant) Release(ctx context.Context) error {
	if g.released.Swap(true) {
		return nil
	}
	held := g.hold.Stop(ctx)
	still, err := g.delete(ctx) // also what was lost only by our clock
	switch {
	case !held || err == nil && !still:
		return coalesce.ErrFenced
	case err != nil:
		return fmt.Errorf("redislease: release: %w", err)
	}
	return nil
}

// delete gives the lease back, and reports whether it was still ours.
func (g *grant) delete(ctx context.Context) (bool, error) {
	n, err := g.lease.scripts.release.Exec(ctx, g.lease.client, []string{g.names.lease, g.names.channel},
		[]string{g.owner}).AsInt64()
	return n == 1, err
}

// giveBack deletes a lease that may have been granted. After a time to live
// there is nothing left to delete.
func (g *grant) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), min(g.lease.ttl, 10*time.Second))
	defer cancel()
	_, _ = g.delete(ctx)
}
