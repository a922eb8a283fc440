package cluster

import (
	"fmt"
	"maps"
	"strconv"
)

// properties are the settings of a node, before KafkaConfig.Settings override them. They differ from
// production in what makes tests quick and small: few partitions of the internal topics, no delay
// before the first rebalance, short sessions allowed, little memory set aside.
func (k *Kafka) properties(n *node) map[string]string {
	replicas := strconv.Itoa(min(len(k.nodes), 3))
	inSync := strconv.Itoa(min(len(k.nodes), 2))
	settings := map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  strconv.Itoa(n.id),
		"listeners":                                fmt.Sprintf("INTERNAL://%s,CLIENT://%s,CONTROLLER://%s", n.internal.address(), n.client.address(), n.controller.address()),
		"advertised.listeners":                     fmt.Sprintf("INTERNAL://%s,CLIENT://%s", n.internal.address(), n.advertised),
		"listener.security.protocol.map":           "INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENT:" + k.config.Listener.protocol(),
		"inter.broker.listener.name":               "INTERNAL",
		"controller.listener.names":                "CONTROLLER",
		"log.dirs":                                 n.dataPath(),
		"auto.create.topics.enable":                "false",
		"default.replication.factor":               replicas,
		"min.insync.replicas":                      inSync,
		"offsets.topic.num.partitions":             "8",
		"offsets.topic.replication.factor":         replicas,
		"transaction.state.log.num.partitions":     "8",
		"transaction.state.log.replication.factor": replicas,
		"transaction.state.log.min.isr":            inSync,
		"group.initial.rebalance.delay.ms":         "0",
		"group.min.session.timeout.ms":             "1000",
		"num.network.threads":                      "2",
		"num.io.threads":                           "4",
		"log.cleaner.dedupe.buffer.size":           strconv.Itoa(4 << 20),

		// A killed broker may register again only after its old session has ended: 9 s by default.
		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",
	}
	if k.config.ACL {
		settings["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		settings["super.users"] = "User:ANONYMOUS;User:" + SuperUser
	}
	maps.Copy(settings, k.config.Listener.properties())
	return settings
}
