package redislease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// pollEvery is how often those that wait look, in case that no message comes.
const pollEvery = time.Second

// Wait returns nil when key has no holder: woken by the release, at most a
// second after it if the message was lost, and when the time to live of a holder
// that died has run out. Returns the error of ctx when that ends first, and the
// error of the client if Redis has not answered for Options.TTL.
func (l *Lease) Wait(ctx context.Context, key string) error {
	n := l.names(key)
	listener := l.waiting.join(n.channel)
	defer l.waiting.leave(n.channel, listener)
	for {
		woken := listener.next() // before the look, so that nothing between is missed
		left, err := l.left(ctx, n)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("redislease: wait: %w", err)
		case left == 0:
			return nil
		}
		timer := time.NewTimer(min(left, pollEvery/2+rand.N(pollEvery/2)))
		select {
		case <-woken:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// left is how long the holder of a key holds it unless it renews, and 0 if there
// is none. While Redis cannot be reached it is asked again, for as long as a
// holder that died may hold.
func (l *Lease) left(ctx context.Context, n names) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	left, err := l.scripts.left.Exec(ctx, l.client, []string{n.lease}, nil).AsInt64()
	if left == -2 { // no such key
		return 0, err
	}
	return time.Duration(max(left, 0)+1) * time.Millisecond, err // rounded up
}

// listeners are the subscriptions of those that wait: one for each key, however
// many wait. When the last has left, the subscription is given up: a connection
// would otherwise collect the channels of all keys that it has ever waited for.
type listeners struct {
	client rueidis.Client

	mu        sync.Mutex
	byChannel map[string]*listener
}

// A listener is one subscription.
type listener struct {
	waiters int // guarded by listeners.mu
	cancel  context.CancelFunc

	mu    sync.Mutex
	woken chan struct{} // closed and replaced at each message
}

func (ls *listeners) join(channel string) *listener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byChannel[channel]
	if l == nil {
		ctx, cancel := context.WithCancel(context.Background())
		l = &listener{cancel: cancel, woken: make(chan struct{})}
		ls.byChannel[channel] = l
		go l.listen(ctx, ls.client, channel)
	}
	l.waiters++
	return l
}

func (ls *listeners) leave(channel string, l *listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.waiters--; l.waiters == 0 {
		delete(ls.byChannel, channel)
		l.cancel()
	}
}

// next returns a channel that is closed at the next message.
func (l *listener) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.woken
}

func (l *listener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.woken)
	l.woken = make(chan struct{})
}

// listen is subscribed until ctx ends. A subscription that breaks is made anew;
// meanwhile, and on a server that does not know how, Wait looks by itself.
func (l *listener) listen(ctx context.Context, client rueidis.Client, channel string) {
	ctx = rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "ssubscribe" {
			l.wake() // what was published before is lost: look once more
		}
	})
	// rueidis forgets a Receive that ends, and the server does not.
	ctx = rueidis.WithOnReceiveReturnHook(ctx, func(err error, wire rueidis.CommandClient) error {
		ctx, cancel := context.WithTimeout(context.Background(), pollEvery)
		defer cancel()
		wire.Do(ctx, wire.B().Sunsubscribe().Channel(channel).Build())
		return err
	})
	for {
		err := client.Receive(ctx, client.B().Ssubscribe().Channel(channel).Build(), func(rueidis.PubSubMessage) { l.wake() })
		if _, refused := rueidis.IsRedisErr(err); refused {
			return
		}
		if err == nil && ctx.Err() == nil {
			continue // given up by a listener before us, which left as we came
		}
		again := time.NewTimer(pollEvery)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
}
