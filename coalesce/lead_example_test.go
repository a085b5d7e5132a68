package coalesce_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
)

// Three machines with a hundred callers each ask for one page. One query is
// made. The lease and the store are in memory here; redislease and sqllease are
// real ones.
func ExampleLead() {
	store := coalescetest.NewStore(10 * time.Second)
	var queries atomic.Int32

	machine := func() func(ctx context.Context, key string) ([]byte, error) {
		lease := store.Process()
		var pages coalesce.Group[string, []byte] // one waiter for all callers of this machine
		return func(ctx context.Context, key string) ([]byte, error) {
			return pages.Do(ctx, key, func(ctx context.Context) ([]byte, error) {
				return coalesce.Lead(ctx, lease, key,
					func(ctx context.Context) ([]byte, bool, error) { return lease.Get(ctx, key) },
					func(ctx context.Context, token coalesce.Token) ([]byte, error) {
						queries.Add(1)
						page := []byte("the page of " + key)
						return page, lease.Put(ctx, key, token, page) // refused, if this machine is late
					})
			})
		}
	}

	var callers sync.WaitGroup
	for range 3 {
		page := machine()
		for range 100 {
			callers.Go(func() {
				if p, err := page(context.Background(), "Gopher"); err != nil || string(p) != "the page of Gopher" {
					fmt.Println("unexpected:", string(p), err)
				}
			})
		}
	}
	callers.Wait()
	fmt.Println(queries.Load(), "query for 300 callers")
	// Output: 1 query for 300 callers
}
