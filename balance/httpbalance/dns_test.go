package httpbalance_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// addresses is a name service with one name.
type addresses struct {
	network string // that was asked for
	addrs   []netip.Addr
	err     error
}

func (a *addresses) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if host != "users.internal" {
		return nil, errors.New("no such host")
	}
	a.network = network
	return a.addrs, a.err
}

func parse(addrs ...string) (all []netip.Addr) {
	for _, a := range addrs {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func TestEachAddressOfANameIsABackend(t *testing.T) {
	t.Parallel()
	mixed := parse("10.0.0.2", "::ffff:10.0.0.1", "fd00::1", "10.0.0.1", "10.0.0.2")
	for _, tc := range []struct {
		network, asked string
		addrs          []netip.Addr
		want           []string
	}{
		{"", "ip", mixed, []string{"10.0.0.1:8080", "10.0.0.2:8080"}},
		{"", "ip", parse("fd00::2", "fd00::1"), []string{"[fd00::1]:8080", "[fd00::2]:8080"}},
		{"ip", "ip", mixed, []string{"10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"}},
		{"ip4", "ip4", parse("10.0.0.1"), []string{"10.0.0.1:8080"}},
		{"ip6", "ip6", parse("fe80::1%eth0"), []string{"[fe80::1%eth0]:8080"}},
	} {
		lookup := &addresses{addrs: tc.addrs}
		d, err := httpbalance.NewDNS("http://users.internal:8080", httpbalance.DNSOptions{Network: tc.network, Lookup: lookup})
		require.NoError(t, err)
		set, err := d.Resolve(context.Background())
		require.NoError(t, err)
		require.Equal(t, tc.asked, lookup.network)
		var got []string
		for _, b := range set {
			got = append(got, b.ID)
			require.Equal(t, b.ID, b.Value.Host)
			require.Equal(t, "http", b.Value.Scheme)
		}
		require.Equal(t, tc.want, got)
	}
	require.Len(t, mixed, 5, "the answer of the lookup is not changed")
	require.Equal(t, "fd00::1", mixed[2].String())
}

func TestSchemePortAndPathAreThoseOfTheTarget(t *testing.T) {
	t.Parallel()
	d, err := httpbalance.NewDNS("https://users.internal/v1", httpbalance.DNSOptions{Lookup: &addresses{addrs: parse("10.0.0.1")}})
	require.NoError(t, err)
	set, err := d.Resolve(context.Background())
	require.NoError(t, err)
	require.Equal(t, [][2]string{{"10.0.0.1:443/v1", "https://10.0.0.1:443/v1"}}, urlsOf(set))
}

func TestAnEmptyOrFailedLookupIsAnError(t *testing.T) {
	t.Parallel()
	lookup := &addresses{}
	d, err := httpbalance.NewDNS("http://users.internal", httpbalance.DNSOptions{Lookup: lookup})
	require.NoError(t, err)
	_, err = d.Resolve(context.Background())
	require.ErrorIs(t, err, balance.ErrNoBackends)
	require.EqualError(t, err, "httpbalance: look up users.internal: balance: no backends")
	lookup.err = &net.DNSError{Err: "server misbehaving", Name: "users.internal"}
	_, err = d.Resolve(context.Background())
	require.ErrorAs(t, err, new(*net.DNSError))
}

func TestBadTargetsAreNamed(t *testing.T) {
	t.Parallel()
	_, err := httpbalance.NewDNS("users.internal:80", httpbalance.DNSOptions{})
	require.EqualError(t, err, `httpbalance: DNS target "users.internal:80": the scheme is "users.internal", expected http or https`)
	_, err = httpbalance.NewDNS("http://users.internal", httpbalance.DNSOptions{Network: "tcp"})
	require.EqualError(t, err, `httpbalance: DNSOptions.Network is "tcp", expected "ip", "ip4", "ip6" or empty`)
	_, err = httpbalance.NewSRV("http://_http._tcp.users:80", httpbalance.SRVOptions{})
	require.EqualError(t, err, `httpbalance: SRV target "http://_http._tcp.users:80": the port is 80, expected none: SRV records have ports`)
	_, err = httpbalance.NewSRV("_http._tcp.users", httpbalance.SRVOptions{})
	require.EqualError(t, err, `httpbalance: SRV target "_http._tcp.users": the scheme is "", expected http or https`)
}

// The default resolver answers for an address without asking anybody.
func TestTheDefaultResolverIsThatOfNet(t *testing.T) {
	t.Parallel()
	d, err := httpbalance.NewDNS("http://127.0.0.1:81", httpbalance.DNSOptions{})
	require.NoError(t, err)
	set, err := d.Resolve(context.Background())
	require.NoError(t, err)
	require.Equal(t, [][2]string{{"127.0.0.1:81", "http://127.0.0.1:81"}}, urlsOf(set))
}

type services struct {
	records []*net.SRV
	err     error
}

func (s services) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if service != "" || proto != "" || name != "_http._tcp.users.internal" {
		return "", nil, errors.New("asked for something else")
	}
	return name + ".", s.records, s.err
}

func resolveSRV(t require.TestingT, s services) (map[string]float64, error) {
	r, err := httpbalance.NewSRV("https://_http._tcp.users.internal/v1", httpbalance.SRVOptions{Lookup: s})
	require.NoError(t, err)
	set, err := r.Resolve(context.Background())
	require.True(t, slices.IsSortedFunc(set, func(a, b balance.Backend[*url.URL]) int { return strings.Compare(a.ID, b.ID) }))
	weights := map[string]float64{}
	for _, b := range set {
		require.Equal(t, "https://"+b.ID, b.Value.String())
		weights[b.ID] = b.Weight
	}
	return weights, err
}

func TestSRVPrioritiesAndWeights(t *testing.T) {
	t.Parallel()
	invalid := &net.DNSError{Err: "DNS response contained records which contain invalid names"}
	for name, tc := range map[string]struct {
		services
		want map[string]float64
		err  error
	}{
		"weights":        {services{[]*net.SRV{{Target: "a.", Port: 1, Weight: 60}, {Target: "B.x.", Port: 2, Weight: 20}}, nil}, map[string]float64{"a:1/v1": 60, "b.x:2/v1": 20}, nil},
		"best priority":  {services{[]*net.SRV{{Target: "c.", Port: 3, Priority: 20}, {Target: "a.", Port: 1, Priority: 10}, {Target: "b.", Port: 2, Priority: 30}, {Target: "d.", Port: 1, Priority: 10}}, nil}, map[string]float64{"a:1/v1": 0, "d:1/v1": 0}, nil},
		"some of 0":      {services{[]*net.SRV{{Target: "a.", Port: 1, Weight: 8}, {Target: "b.", Port: 1}, {Target: "c.", Port: 1}}, nil}, map[string]float64{"a:1/v1": 8, "b:1/v1": 0.5, "c:1/v1": 0.5}, nil},
		"twice":          {services{[]*net.SRV{{Target: "a.", Port: 1, Weight: 1}, {Target: "A", Port: 1, Weight: 2}}, nil}, map[string]float64{"a:1/v1": 3}, nil},
		"no service":     {services{[]*net.SRV{{Target: "."}}, nil}, map[string]float64{}, balance.ErrNoBackends},
		"no port":        {services{[]*net.SRV{{Target: "a."}, {Target: "b.", Port: 1, Priority: 5}}, nil}, map[string]float64{"b:1/v1": 0}, nil},
		"empty":          {services{nil, nil}, map[string]float64{}, balance.ErrNoBackends},
		"error":          {services{nil, invalid}, map[string]float64{}, invalid},
		"partial answer": {services{[]*net.SRV{{Target: "a.", Port: 1}}, invalid}, map[string]float64{"a:1/v1": 0}, nil},
	} {
		got, err := resolveSRV(t, tc.services)
		require.Equal(t, tc.want, got, name)
		require.ErrorIs(t, err, tc.err, name)
	}
}

// The shares are those of the algorithm in RFC 2782: order the records with those of
// weight 0 first, draw a number from 0 to the sum of weights, inclusive, and take the
// first record whose running sum reaches it.
func TestSRVSharesAreThoseOfRFC2782(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s services
		sum, zeros := 0.0, 0.0
		for i, w := range rapid.SliceOfN(rapid.SampledFrom([]uint16{0, 0, 1, 5, 65535}), 1, 8).Draw(t, "weights") {
			s.records = append(s.records, &net.SRV{Target: "h.", Port: uint16(i + 1), Weight: w})
			sum += float64(w)
			if w == 0 {
				zeros++
			}
		}
		got, err := resolveSRV(t, s)
		require.NoError(t, err)
		all := 0.0
		for id, w := range got {
			if w == 0 { // a Backend of weight 0 counts as 1, so they must all be
				require.Zero(t, sum)
				got[id] = 1
			}
			all += got[id]
		}
		for i, r := range s.records {
			share := got[net.JoinHostPort("h", strconv.Itoa(i+1))+"/v1"] / all
			switch {
			case sum == 0:
				require.InDelta(t, 1/zeros, share, 1e-9)
			case r.Weight == 0:
				require.InDelta(t, 1/(sum+1)/zeros, share, 1e-9, "the first of them in an order that is not said")
			case zeros > 0:
				require.InDelta(t, float64(r.Weight)/(sum+1), share, 1e-9)
			default:
				require.InDelta(t, float64(r.Weight)/sum, share, 1e-9)
			}
		}
	})
}
