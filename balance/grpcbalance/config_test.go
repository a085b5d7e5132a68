package grpcbalance_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/evenkeel-go/evenkeel/balance/grpcbalance"
)

func parse(t *testing.T, policy, config string) error {
	t.Helper()
	b := balancer.Get(policy)
	require.NotNil(t, b)
	_, err := b.(balancer.ConfigParser).ParseConfig([]byte(config))
	return err
}

func TestGoodConfigs(t *testing.T) {
	for _, policy := range policies {
		for _, config := range []string{
			`{}`,
			`{"zone":{"local":"a","min":5,"clients":0.25}}`,
			`{"health":{"penalty":"0.5s","consecutive":7,"successRate":0.9,"interval":"30s","volume":50,
				"maxEjected":0.3,"keep":2,"baseEjection":"10s","maxEjection":"1m","panic":0.4,"slowStart":"30s"}}`,
			`{"health":{"penalty":"-1s","consecutive":-1,"successRate":-1,"maxEjected":-1,"panic":-1,"slowStart":"-1s"}}`,
			`{"failureCodes":[]}`,
			`{"failureCodes":["UNAVAILABLE",13]}`,
			`{"fromALaterVersion":true}`,
		} {
			require.NoError(t, parse(t, policy, config), config)
		}
	}
	require.NoError(t, parse(t, grpcbalance.LeastRequest, `{"choices":3}`))
	require.NoError(t, parse(t, grpcbalance.LeastLatency, `{"decay":"1.5s"}`))
}

func TestBadConfigsAreRefusedWithFieldAndValue(t *testing.T) {
	for _, c := range []struct {
		policy, config string
		want           []string
	}{
		{grpcbalance.LeastRequest, `[]`, []string{"array"}},
		{grpcbalance.LeastRequest, `{`, []string{"JSON"}},
		{grpcbalance.LeastRequest, `{"choices":1}`, []string{"Choices", "1"}},
		{grpcbalance.LeastRequest, `{"choices":"2"}`, []string{"choices", "string"}},
		{grpcbalance.LeastRequest, `{"choices":2.5}`, []string{"choices", "2.5"}},
		{grpcbalance.LeastRequest, `{"decay":"1s"}`, []string{"decay", "1s", grpcbalance.LeastLatency}},
		{grpcbalance.RoundRobin, `{"choices":2}`, []string{"choices", "2", grpcbalance.LeastRequest}},
		{grpcbalance.LeastLatency, `{"decay":"soon"}`, []string{"soon", "1.5s"}},
		{grpcbalance.LeastLatency, `{"decay":10}`, []string{"10", "1.5s"}},
		{grpcbalance.LeastLatency, `{"decay":"-1s"}`, []string{"Decay", "-1s"}},
		{grpcbalance.Random, `{"health":{"successRate":80}}`, []string{"SuccessRate", "80"}},
		{grpcbalance.Random, `{"health":{"baseEjection":"1h","maxEjection":"1m"}}`, []string{"MaxEjection", "1m"}},
		{grpcbalance.Random, `{"failureCodes":["OK"]}`, []string{"failureCodes", "OK"}},
		{grpcbalance.Random, `{"failureCodes":["CANCELLED"]}`, []string{"failureCodes", "CANCELLED"}},
		{grpcbalance.Random, `{"failureCodes":["UNREACHABLE"]}`, []string{"UNREACHABLE"}},
	} {
		err := parse(t, c.policy, c.config)
		require.Error(t, err, c.config)
		for _, want := range append(c.want, c.policy) {
			require.ErrorContains(t, err, want, c.config)
		}
	}
}

func TestABadConfigFailsNewClient(t *testing.T) {
	options := append(grpcbalance.DialOptions(grpcbalance.LeastRequest), grpc.WithTransportCredentials(insecure.NewCredentials()))
	_, err := grpc.NewClient("passthrough:///x", append(options, serviceConfig(grpcbalance.LeastRequest, `{"choices":99}`, ""))...)
	require.ErrorContains(t, err, "99")
	_, err = grpc.NewClient("passthrough:///x", append(options, grpcbalance.DialOptions("evenkeel_best")...)...)
	require.Error(t, err)
}

func TestRegisteringAgainChangesNothing(t *testing.T) {
	before := balancer.Get(grpcbalance.LeastRequest)
	require.Same(t, registry, grpcbalance.Register())
	require.Same(t, before, balancer.Get(grpcbalance.LeastRequest))
}
