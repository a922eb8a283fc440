package testkit

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"pawl/internal/cluster"
)

// Tests, the demo and docker-compose.yml run the same servers.
func TestImagesAreThoseOfCompose(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var images []string
	for _, match := range regexp.MustCompile(`(?m)^\s*image:\s*(\S+)`).FindAllSubmatch(text, -1) {
		images = append(images, string(match[1]))
	}
	for _, image := range []string{kafkaImage, postgresImage} {
		if !slices.Contains(images, image) {
			t.Errorf("docker-compose.yml does not use %s; it has %v", image, images)
		}
	}
	if want := "apache/kafka:" + cluster.KafkaVersion; kafkaImage != want {
		t.Errorf("the image of Kafka is %s, internal/cluster runs %s", kafkaImage, want)
	}
}
