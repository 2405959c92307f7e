//! Vectors out of an embedding answer: base64 or numbers, matched to their inputs by `index`.

use std::fmt;

use base64::Engine;
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::Value;

/// An answer as far as we need it.
#[derive(Deserialize)]
pub(super) struct Body {
    #[serde(default)]
    data: Vec<Item>,
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    pub(super) usage: Value,
    #[serde(default)]
    pub(super) error: Value,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    index: Option<u64>,
    embedding: Numbers,
}

/// A vector, straight from its text: a list of JSON values would take eight times the memory.
struct Numbers(Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 text or a list of numbers")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Numbers, E> {
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_err(|error| E::custom(format!("a vector is not base64: {error}")))?;
                let (quads, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(E::custom("a vector's bytes do not divide by four"));
                }
                Ok(Numbers(quads.iter().map(|quad| f32::from_le_bytes(*quad)).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = list.next_element::<f32>()? {
                    numbers.push(number);
                }
                Ok(Numbers(numbers))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Body {
    /// One vector for each of `inputs` inputs, all finite and of one length, or what is wrong with them.
    pub(super) fn vectors(self, inputs: usize) -> Result<Vec<Vec<f32>>, String> {
        if self.data.len() != inputs {
            return Err(format!("{} vectors for {inputs} inputs", self.data.len()));
        }
        let mut places: Vec<Option<Vec<f32>>> = vec![None; inputs];
        let length = self.data.first().map_or(0, |item| item.embedding.0.len());
        for Item { index, embedding: Numbers(vector) } in self.data {
            let index = index.ok_or("a vector without index")?;
            let place = usize::try_from(index).ok().and_then(|index| places.get_mut(index));
            let place = place.ok_or_else(|| format!("index {index} among {inputs} inputs"))?;
            if place.is_some() {
                return Err(format!("two vectors with index {index}"));
            }
            if vector.is_empty() || vector.len() != length {
                return Err(format!("vector {index} has {} numbers, another has {length}", vector.len()));
            }
            if !vector.iter().all(|number| number.is_finite()) {
                return Err(format!("vector {index} contains something that is not a number"));
            }
            *place = Some(vector);
        }
        // As many as places, each in a place of its own: none is empty.
        Ok(places.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vectors(body: Value, inputs: usize) -> Result<Vec<Vec<f32>>, String> {
        let body: Body = serde_json::from_value(body).map_err(|error| error.to_string())?;
        body.vectors(inputs)
    }

    fn base64(numbers: &[f32]) -> String {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    #[test]
    fn both_encodings_give_the_same_in_the_order_of_the_inputs() {
        let expected = vec![vec![0.5, -1.0], vec![0.25, 2.0]];
        let floats = json!({"data": [{"index": 1, "embedding": [0.25, 2]}, {"index": 0, "embedding": [0.5, -1.0]}]});
        assert_eq!(vectors(floats, 2).unwrap(), expected);
        let encoded = json!({"data": [{"index": 1, "embedding": base64(&expected[1]), "object": "embedding"},
                                      {"index": 0, "embedding": base64(&expected[0])}], "novel": {}});
        assert_eq!(vectors(encoded, 2).unwrap(), expected);
    }

    #[test]
    fn whatever_is_not_one_good_vector_for_each_input_is_an_error() {
        let item = |index: Value, embedding: Value| json!({"index": index, "embedding": embedding});
        let good = || item(json!(0), json!([1.0]));
        let cases = [
            (json!({"data": []}), "0 vectors"),
            (json!({"data": [good()]}), "1 vectors"),
            (json!({"data": [good(), good()]}), "two vectors with index 0"),
            (json!({"data": [good(), item(json!(2), json!([1.0]))]}), "index 2"),
            (json!({"data": [good(), {"embedding": [1.0]}]}), "without index"),
            (json!({"data": [good(), item(json!(1), json!([1.0, 2.0]))]}), "numbers"),
            (json!({"data": [item(json!(0), json!([])), item(json!(1), json!([]))]}), "0 numbers"),
            (json!({"data": [good(), item(json!(1), json!(base64(&[f32::NAN])))]}), "not a number"),
            (json!({"data": [good(), item(json!(1), json!(base64(&[f32::INFINITY])))]}), "not a number"),
            (json!({"data": [good(), item(json!(1), json!("AAA="))]}), "divide by four"),
            (json!({"data": [good(), item(json!(1), json!("%%%"))]}), "not base64"),
            (json!({"data": [good(), item(json!(1), json!([null]))]}), "null"),
            (json!({"data": [good(), item(json!(-1), json!([1.0]))]}), "invalid value"),
            (json!({"data": [good(), item(json!(1), json!({}))]}), "base64 text or a list"),
            (json!({}), "0 vectors"),
        ];
        for (body, reason) in cases {
            let error = vectors(body.clone(), 2).unwrap_err();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }
}
