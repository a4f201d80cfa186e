package recover

import (
	"context"
	"errors"
	"testing"
)

func TestNewCredentialsAreUsedEvenWhenAnOlderSignInEndsAfterThem(t *testing.T) {
	older, newer := newCloud(t, nil), newCloud(t, nil)
	n := &novaSide{host: "node", problems: newProblems()}
	n.configure(func(context.Context) (Cloud, error) {
		n.configure(func(context.Context) (Cloud, error) { return newer, nil }) // while this one signs in
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
	n.configure(func(context.Context) (Cloud, error) { tried++; return nil, ErrCredentials })
	if _, err := n.connect(t.Context()); !errors.Is(err, ErrCredentials) {
		t.Errorf("the first: %v", err)
	}
	if _, err := n.connect(t.Context()); !errors.Is(err, ErrCloudUnavailable) || tried != 1 {
		t.Errorf("the second: %v, %d tries", err, tried)
	}
	if n.ask(t.Context(), testUUID(1)) != novaUnknown || len(n.problems.list()) != 1 {
		t.Errorf("it is not said: %v", n.problems.list())
	}
}
