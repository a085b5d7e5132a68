package grpclimit_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/grpclimit"
)

var byUser = grpclimit.Metadata("user")

func everybody(context.Context, grpclimit.Call) (string, error) { return "all", nil }

func TestCallsAboveALimitAreRefused(t *testing.T) {
	m := limits(t, keyed(t, ratelimit.Per(2, time.Hour)), grpclimit.Options{Name: "user", Key: byUser})
	c := start(t, &service{}, m)
	require.NoError(t, check(as(t, "a"), c))
	require.NoError(t, watch(as(t, "a"), c), "a stream costs the same")
	for name, call := range map[string]func(...grpc.CallOption) error{
		"unary":  func(o ...grpc.CallOption) error { return check(as(t, "a"), c, o...) },
		"stream": func(o ...grpc.CallOption) error { return watch(as(t, "a"), c, o...) },
	} {
		var trailer metadata.MD
		err := call(grpc.Trailer(&trailer))
		require.Equal(t, codes.ResourceExhausted, status.Code(err), name)
		require.Equal(t, `limit "user" is reached`, status.Convert(err).Message())
		require.Equal(t, "user", subject(err), name)
		wait := retryInfo(err)
		require.Greater(t, wait, 29*time.Minute, name)
		require.LessOrEqual(t, wait, 30*time.Minute, name)
		require.Len(t, trailer.Get("grpc-retry-pushback-ms"), 1, name)
		ms, err := strconv.ParseInt(trailer.Get("grpc-retry-pushback-ms")[0], 10, 64)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Duration(ms)*time.Millisecond, wait, "rounded up")
	}
	require.NoError(t, check(as(t, "b"), c), "another client has its own limit")
	require.Equal(t, codes.InvalidArgument, status.Code(check(as(t, ""), c)), "no key")
	require.Equal(t, codes.InvalidArgument, status.Code(watch(as(t, ""), c)), "no key")
	require.Equal(t, grpclimit.Stats{
		Allowed: 3, Refused: 2, Keyless: 2, Policies: []grpclimit.PolicyStats{{Name: "user", Refused: 2}},
	}, m.Stats())
}

func TestWhatCanNeverBeHadIsNotToBeRetried(t *testing.T) {
	m := limits(t, keyed(t, ratelimit.Per(2, time.Hour)), grpclimit.Options{
		Key: byUser, Cost: func(_ context.Context, c grpclimit.Call) int64 {
			if c.Request == nil {
				return 1 // a stream
			}
			return int64(len(c.Request.(*grpc_health_v1.HealthCheckRequest).GetService()))
		},
	})
	c := start(t, &service{}, m)
	var trailer metadata.MD
	_, err := c.Check(as(t, "a"), &grpc_health_v1.HealthCheckRequest{Service: "abc"}, grpc.Trailer(&trailer))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, time.Duration(-1), retryInfo(err), "no RetryInfo")
	require.Equal(t, []string{"-1"}, trailer.Get("grpc-retry-pushback-ms"))
	_, err = c.Check(as(t, "a"), &grpc_health_v1.HealthCheckRequest{Service: "ab"})
	require.NoError(t, err)
}

func TestPoliciesAreDecidedTogether(t *testing.T) {
	user, site := keyed(t, ratelimit.Per(2, time.Hour)), keyed(t, ratelimit.Per(3, time.Hour))
	m := limits(t, user, grpclimit.Options{
		Name: "user", Key: byUser,
		Also: []grpclimit.Policy{
			{Name: "site", Limiter: site, Key: everybody},
			{Name: "none", Limiter: keyed(t, ratelimit.Per(1, time.Hour)), Key: byUser, When: func(context.Context, grpclimit.Call) bool { return false }},
		},
	})
	c := start(t, &service{}, m)
	var refused []string
	for _, who := range []string{"a", "a", "a", "b", "b"} {
		refused = append(refused, subject(check(as(t, who), c)))
	}
	require.Equal(t, []string{"", "", "user", "", "site"}, refused)
	require.Equal(t, int64(1), user.Peek("b", 0).Remaining, "what the site refused was not charged to b")
}

func TestGRPCRetriesHeedThePushback(t *testing.T) {
	const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
		"retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]}`
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), grpclimit.Options{
		Key: byUser, Cost: func(context.Context, grpclimit.Call) int64 { return 2 }, // which can never be had
	})
	c := start(t, &service{}, m, grpc.WithDefaultServiceConfig(retries))
	require.Equal(t, codes.ResourceExhausted, status.Code(check(as(t, "a"), c)))
	require.Equal(t, uint64(1), m.Stats().Refused, "it is not repeated")

	// Without an interceptor that says so, it would be.
	attempts := 0
	plain := start(t, &service{check: func(context.Context) error {
		attempts++ // one after the other
		return status.Error(codes.ResourceExhausted, "")
	}}, limits(t, keyed(t, ratelimit.Per(100, time.Hour)), grpclimit.Options{Key: byUser}), grpc.WithDefaultServiceConfig(retries))
	require.Equal(t, codes.ResourceExhausted, status.Code(check(as(t, "a"), plain)))
	require.Equal(t, 5, attempts)
}

// unary calls an interceptor without a network.
func unary(ctx context.Context, i interceptors, handler grpc.UnaryHandler) (any, error) {
	return i.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/s/M"}, handler)
}

func ok(context.Context, any) (any, error) { return "served", nil }

func from(user string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs("user", user))
}

func TestShadowRefusesNobody(t *testing.T) {
	mode := grpclimit.Shadow
	var seen []ratelimit.Decision
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), grpclimit.Options{
		Key: byUser, Mode: func(context.Context, grpclimit.Call) grpclimit.Mode { return mode },
		OnDecision: func(_ context.Context, c grpclimit.Call, m grpclimit.Mode, d ratelimit.Decision) {
			require.Equal(t, mode, m)
			require.Equal(t, "/s/M", c.FullMethod)
			seen = append(seen, d)
		},
	})
	for _, ctx := range []context.Context{from("a"), from("a"), context.Background()} {
		got, err := unary(ctx, m, ok)
		require.NoError(t, err)
		require.Equal(t, "served", got)
	}
	require.Len(t, seen, 2)
	require.False(t, seen[1].Allowed)
	mode = grpclimit.Off
	_, err := unary(context.Background(), m, ok)
	require.NoError(t, err)
	require.Equal(t, grpclimit.Stats{Allowed: 1, Shadowed: 2, Off: 1, Policies: []grpclimit.PolicyStats{{Name: "default", Refused: 1}}}, m.Stats())
	mode = grpclimit.Enforce
	_, err = unary(from("a"), m, ok)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

func TestItsOwnErrorsLetCallsThrough(t *testing.T) {
	broken, err := ratelimit.NewKeyedBy(func(string) ratelimit.Limit { panic("boom") }, ratelimit.KeyedOptions{Capacity: 10})
	require.NoError(t, err)
	l := keyed(t, ratelimit.Per(1, time.Hour))
	for name, tc := range map[string]struct {
		l *ratelimit.Keyed[string]
		o grpclimit.Options
	}{
		"Key":     {l, grpclimit.Options{Key: func(context.Context, grpclimit.Call) (string, error) { panic("boom") }}},
		"ErrPass": {l, grpclimit.Options{Key: func(context.Context, grpclimit.Call) (string, error) { return "", grpclimit.ErrPass }}},
		"Cost":    {l, grpclimit.Options{Key: byUser, Cost: func(context.Context, grpclimit.Call) int64 { panic("boom") }}},
		"cost":    {l, grpclimit.Options{Key: byUser, Cost: func(context.Context, grpclimit.Call) int64 { return -1 }}},
		"When":    {l, grpclimit.Options{Key: byUser, When: func(context.Context, grpclimit.Call) bool { panic("boom") }}},
		"Mode":    {l, grpclimit.Options{Key: byUser, Mode: func(context.Context, grpclimit.Call) grpclimit.Mode { panic("boom") }}},
		"limit":   {broken, grpclimit.Options{Key: byUser}},
	} {
		var failures []error
		tc.o.OnError = func(_ context.Context, _ grpclimit.Call, err error) {
			failures = append(failures, err)
			panic("and the hook too")
		}
		m := limits(t, tc.l, tc.o)
		for range 3 {
			_, err := unary(from("a"), m, ok)
			require.NoError(t, err, name)
		}
		require.Len(t, failures, 3, name)
		require.Equal(t, uint64(6), m.Stats().Failed, name)
	}
	m := limits(t, l, grpclimit.Options{Key: byUser, OnDecision: func(context.Context, grpclimit.Call, grpclimit.Mode, ratelimit.Decision) { panic("boom") }})
	_, err = unary(from("a"), m, ok)
	require.NoError(t, err)
	_, err = unary(from("a"), m, ok)
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "a hook changes nothing")
}

func TestPanicsOfTheHandlerAreNotOurs(t *testing.T) {
	m := limits(t, keyed(t, ratelimit.Per(1, time.Hour)), grpclimit.Options{Key: byUser})
	require.PanicsWithValue(t, "mine", func() {
		_, _ = unary(from("a"), m, func(context.Context, any) (any, error) { panic("mine") })
	})
	require.Zero(t, m.Stats().Failed)
}

func TestNewLimitsRefusesWhatCannotWork(t *testing.T) {
	l := keyed(t, ratelimit.Per(1, time.Second))
	for _, tc := range []struct {
		l    *ratelimit.Keyed[string]
		o    grpclimit.Options
		want string
	}{
		{nil, grpclimit.Options{Key: byUser}, "the limiter of Options is nil"},
		{l, grpclimit.Options{}, "Options.Key is nil"},
		{l, grpclimit.Options{Key: byUser, Also: []grpclimit.Policy{{Name: "x", Key: byUser}}}, "the limiter of Options.Also[0] is nil"},
		{l, grpclimit.Options{Key: byUser, Also: []grpclimit.Policy{{Name: "x", Limiter: l}}}, "Options.Also[0].Key is nil"},
		{l, grpclimit.Options{Key: byUser, Also: []grpclimit.Policy{{Limiter: l, Key: byUser}}}, `Options.Also[0].Name is ""`},
		{l, grpclimit.Options{Key: byUser, Also: []grpclimit.Policy{{Name: "default", Limiter: l, Key: byUser}}}, `Options.Also[0].Name is "default"`},
	} {
		_, err := grpclimit.NewLimits(tc.l, tc.o)
		require.ErrorContains(t, err, tc.want)
	}
}

func TestKeys(t *testing.T) {
	at := func(addr net.Addr) context.Context {
		return peer.NewContext(from("ann"), &peer.Peer{Addr: addr})
	}
	tcp := func(ip string) context.Context {
		return at(&net.TCPAddr{IP: net.ParseIP(ip), Port: 4711})
	}
	type userKey struct{}
	user := grpclimit.User(func(ctx context.Context) (string, bool) { u, ok := ctx.Value(userKey{}).(string); return u, ok })
	for _, tc := range []struct {
		why  string
		key  grpclimit.KeyFunc
		ctx  context.Context
		want string // none is an error
	}{
		{"IPv4", grpclimit.Peer, tcp("192.0.2.1"), "192.0.2.1"},
		{"mapped", grpclimit.Peer, tcp("::ffff:192.0.2.1"), "192.0.2.1"},
		{"IPv6", grpclimit.Peer, tcp("2001:db8:1:2:3::4"), "2001:db8:1:2::/64"},
		{"a zone", grpclimit.Peer, at(&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1}), "fe80::/64"},
		{"a unix socket", grpclimit.Peer, at(&net.UnixAddr{Name: "/run/x", Net: "unix"}), ""},
		{"no address", grpclimit.Peer, at(nil), ""},
		{"no peer", grpclimit.Peer, context.Background(), ""},
		{"metadata", byUser, from("ann"), "ann"},
		{"upper case", grpclimit.Metadata("User"), from("ann"), "ann"},
		{"empty metadata", byUser, from(""), ""},
		{"metadata twice", byUser, metadata.NewIncomingContext(context.Background(), metadata.Pairs("user", "a", "user", "b")), ""},
		{"no metadata", byUser, context.Background(), ""},
		{"user", user, context.WithValue(context.Background(), userKey{}, "bob"), "bob"},
		{"no user", user, context.Background(), ""},
		{"joined", grpclimit.Join(grpclimit.Method, byUser), from("ann"), "4:/s/M3:ann"},
		{"joined with nobody", grpclimit.Join(grpclimit.Method, byUser), context.Background(), ""},
	} {
		k, err := tc.key(tc.ctx, grpclimit.Call{FullMethod: "/s/M"})
		require.Equal(t, tc.want, k, tc.why)
		require.Equal(t, tc.want == "", errors.Is(err, grpclimit.ErrNoKey), tc.why)
	}
}

func TestAnAdmissionAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	m := limits(t, keyed(t, ratelimit.Per(1e9, time.Second)), grpclimit.Options{Key: everybody})
	ctx, info := context.Background(), &grpc.UnaryServerInfo{FullMethod: "/s/M"}
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = m.Unary(ctx, nil, info, ok) }))
}

func BenchmarkUnary(b *testing.B) {
	ctx, info := context.Background(), &grpc.UnaryServerInfo{FullMethod: "/s/M"}
	l := keyed(b, ratelimit.Per(1e9, time.Second).Burst(1<<40))
	m := limits(b, l, grpclimit.Options{Key: everybody})
	b.Run("op=floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if l.Take("all", 1).Allowed {
				_, _ = ok(ctx, nil)
			}
		}
	})
	b.Run("op=admit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = m.Unary(ctx, nil, info, ok)
		}
	})
}
