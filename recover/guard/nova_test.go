package guard

import (
	"context"
	"errors"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestNewCredentialsAreUsedEvenWhenAnOlderSignInEndsAfterThem(t *testing.T) {
	older, newer := recovertest.NewCloud(t, nil), recovertest.NewCloud(t, nil)
	n := &novaSide{host: "node", problems: newProblems()}
	n.configure(func(context.Context) (recover.Cloud, error) {
		n.configure(func(context.Context) (recover.Cloud, error) { return newer, nil }) // while this one signs in
		return older, nil
	})
	if c, err := n.connect(t.Context()); c != older || err != nil {
		t.Errorf("the first: %v, %v", c, err)
	}
	for range 2 {
		if c, err := n.connect(t.Context()); c != newer || err != nil {
			t.Errorf("later: %v, %v", c, err)
		}
	}
}

func TestAfterAFailedSignInNovaIsLeftAloneForAWhile(t *testing.T) {
	n := &novaSide{host: "node", problems: newProblems()}
	if c, err := n.connect(t.Context()); c != nil || err != nil {
		t.Errorf("without Nova: %v, %v", c, err)
	}
	tried := 0
	n.configure(func(context.Context) (recover.Cloud, error) { tried++; return nil, recover.ErrCredentials })
	if _, err := n.connect(t.Context()); !errors.Is(err, recover.ErrCredentials) {
		t.Errorf("the first: %v", err)
	}
	if _, err := n.connect(t.Context()); !errors.Is(err, recover.ErrCloudUnavailable) || tried != 1 {
		t.Errorf("the second: %v, %d tries", err, tried)
	}
	if n.ask(t.Context(), recovertest.UUID(1)) != novaUnknown || len(n.problems.list()) != 1 {
		t.Errorf("it is not said: %v", n.problems.list())
	}
}
