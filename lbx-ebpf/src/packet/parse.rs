//! From the frame to what identifies its flow.
