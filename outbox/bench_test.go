package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
)

type none struct{}

func (none) Publish(context.Context, []outbox.Message) []error { return nil }

// BenchmarkDeliver plans and judges a batch of 100 for a Publisher that does
// nothing. The floor hands the batch over as it is. Real drains, with databases,
// are in internal/integration.
func BenchmarkDeliver(b *testing.B) {
	box := newOutbox(b, outbox.Options{})
	for _, keys := range []int{100, 10, 1} {
		msgs := make([]outbox.Message, 100)
		for i := range msgs {
			msgs[i] = outbox.Message{ID: int64(i), Key: fmt.Sprintf("order/%d", i%keys), Payload: make([]byte, 200)}
		}
		b.Run(fmt.Sprintf("impl=floor/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				batch := make([]outbox.Message, len(msgs))
				copy(batch, msgs)
				none{}.Publish(b.Context(), batch)
			}
		})
		b.Run(fmt.Sprintf("impl=outbox/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				box.Deliver(b.Context(), none{}, msgs, nil, nil)
			}
		})
	}
}

// BenchmarkBackoff is one random number and little else.
func BenchmarkBackoff(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	b.Run("impl=floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = r.Int64N(int64(time.Minute))
		}
	})
	b.Run("impl=outbox", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = outbox.Backoff(r, time.Second, time.Minute, 7)
		}
	})
}

// BenchmarkWake is what a request pays after its commit. The floor is a
// non-blocking send.
func BenchmarkWake(b *testing.B) {
	b.Run("impl=floor", func(b *testing.B) {
		b.ReportAllocs()
		wake := make(chan struct{}, 1)
		for b.Loop() {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	})
	b.Run("impl=outbox", func(b *testing.B) {
		b.ReportAllocs()
		box := newOutbox(b, outbox.Options{})
		for b.Loop() {
			box.Wake()
		}
	})
	b.Run("impl=outbox-parallel", func(b *testing.B) {
		b.ReportAllocs()
		box := newOutbox(b, outbox.Options{})
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				box.Wake()
			}
		})
	})
}
