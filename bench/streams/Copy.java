import java.io.FileInputStream;
import java.io.InputStream;
import java.util.Properties;

import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Copies one topic to another until SIGTERM. Arguments: a file of properties for Kafka Streams, topic
 * in, topic out.
 */
public class Copy {
	public static void main(String[] args) throws Exception {
		Properties properties = new Properties();
		try (InputStream file = new FileInputStream(args[0])) {
			properties.load(file);
		}
		StreamsBuilder builder = new StreamsBuilder();
		builder.stream(args[1], Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
			.to(args[2], Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
		KafkaStreams streams = new KafkaStreams(builder.build(properties), properties);
		// A client in this state copies nothing any more: whoever measures has to learn of it.
		streams.setStateListener((now, before) -> {
			if (now == KafkaStreams.State.ERROR) {
				Runtime.getRuntime().halt(1);
			}
		});
		// The runtime would end with 143 after the hook, which says that a signal did it and not in what order.
		Runtime.getRuntime().addShutdownHook(new Thread(() -> {
			streams.close();
			Runtime.getRuntime().halt(0);
		}));
		streams.start();
	}
}
