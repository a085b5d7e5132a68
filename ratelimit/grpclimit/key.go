package grpclimit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// Call is what is known of a call besides its context.
type Call struct {
	// FullMethod is the method, as "/package.Service/Method".
	FullMethod string

	// Request is the message of a unary call, nil for a stream.
	Request any
}

// KeyFunc says whose limit a call is counted against. An error, or an empty key, says
// that the call names nobody: it is refused with InvalidArgument. If it is the server that
// cannot tell, return an error that wraps [ErrPass].
type KeyFunc func(context.Context, Call) (string, error)

var (
	// ErrPass is for a KeyFunc to wrap when it failed through no fault of the client:
	// the policy is then left out for the call.
	ErrPass = errors.New("grpclimit: the key cannot be told")

	// ErrNoKey is wrapped by the errors of this package's key functions when a call
	// does not have what they read.
	ErrNoKey = errors.New("grpclimit: no key")

	// ErrCost is wrapped by the error that OnError gets for a negative cost.
	ErrCost = errors.New("grpclimit: negative cost")
)

// User returns a KeyFunc that takes the key from the context, where an authentication
// has put it. Reporting false, or an empty key, is an error that wraps [ErrNoKey].
func User(of func(context.Context) (string, bool)) KeyFunc {
	return func(ctx context.Context, _ Call) (string, error) {
		user, ok := of(ctx)
		if !ok || user == "" {
			return "", fmt.Errorf("%w: no user in the context", ErrNoKey)
		}
		return user, nil
	}
}

// Metadata returns a KeyFunc that reads a key of the incoming metadata, such as
// "x-api-key". One that is missing, empty or there twice is an error that wraps
// [ErrNoKey]. The client chooses what is in it: use it behind an interceptor that has
// checked it.
func Metadata(name string) KeyFunc {
	return func(ctx context.Context, _ Call) (string, error) {
		values := metadata.ValueFromIncomingContext(ctx, name)
		if len(values) != 1 || values[0] == "" {
			return "", fmt.Errorf("%w: metadata %s is there %d times, expected once and not empty", ErrNoKey, name, len(values))
		}
		return values[0], nil
	}
}

// Method is a [KeyFunc] that gives the full method: in a [Join] it makes a limit for
// each method.
func Method(_ context.Context, c Call) (string, error) { return c.FullMethod, nil }

// Peer is a [KeyFunc] that gives the IP address of the other end of the connection, or
// its /64 if it is an IPv6 address: what one subscriber gets at least. Behind a proxy it
// is the proxy's. A peer without an IP address, as on a unix socket, is an error that
// wraps [ErrNoKey].
func Peer(ctx context.Context, _ Call) (string, error) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return "", fmt.Errorf("%w: no peer in the context", ErrNoKey)
	}
	ap, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return "", fmt.Errorf("%w: the peer's address is no IP address", ErrNoKey)
	}
	addr := ap.Addr().Unmap()
	if addr.Is4() {
		return addr.String(), nil
	}
	return netip.PrefixFrom(addr, 64).Masked().String(), nil // without the zone
}

// Join returns a KeyFunc that combines the keys of several. No two different lists of
// keys give the same key: each is written with its length. If one of them is empty or an
// error, so is the whole.
func Join(keys ...KeyFunc) KeyFunc {
	return func(ctx context.Context, c Call) (string, error) {
		b := make([]byte, 0, 64)
		for _, key := range keys {
			k, err := key(ctx, c)
			if err != nil || k == "" {
				return "", err
			}
			b = strconv.AppendInt(b, int64(len(k)), 10)
			b = append(b, ':')
			b = append(b, k...)
		}
		return string(b), nil
	}
}
