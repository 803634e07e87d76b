//! Colour scales as points of equal distance, sampled from those that were published under these names.
//! NOTICE names their authors.

/// The colour at each point, red, green and blue in hexadecimal.
pub struct ColorScale {
    pub name: &'static str,
    points: &'static str,
}

impl ColorScale {
    /// The scale of that name in any ASCII case.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCALES.iter().find(|scale| scale.name.eq_ignore_ascii_case(name))
    }

    /// Red, green and blue (0 to 255) at a place from 0 to 1, linear between the points. A place beyond is the nearest
    /// end, NaN the start.
    pub fn at(&self, place: f64) -> [f64; 3] {
        let last = self.points.len() / 6 - 1;
        let position = place.clamp(0.0, 1.0) * last as f64;
        let left = (position as usize).min(last - 1);
        // the cast makes 0 of NaN
        let fraction = if position.is_nan() { 0.0 } else { position - left as f64 };
        std::array::from_fn(|channel| {
            let (one, other) = (self.channel(left, channel), self.channel(left + 1, channel));
            one + (other - one) * fraction
        })
    }

    fn channel(&self, point: usize, channel: usize) -> f64 {
        let at = 6 * point + 2 * channel;
        f64::from(u8::from_str_radix(&self.points[at..at + 2], 16).unwrap_or_default())
    }
}

/// 65 points each.
pub const SCALES: &[ColorScale] = &[
    ColorScale {
        name: "viridis",
        points:
            "44015446065a470d6047136548186a481d6f482374482878472d7b46327e453681443b844240864045873f49893d4e8a3b528b\
            39568c375a8d355e8d33638d31668e2f6a8e2e6e8e2c728e2b768e297a8e287d8e26818e25858e23898e228c8d21908c20948c\
            1f988b1e9b8a1f9f8820a38721a68524aa8328ae802cb17e31b57b37b8773ebc7445bf704cc26c54c6675dc96365cc5d6ece58\
            78d15282d34c8cd64696d83fa0da39abdc32b5de2bc0df24cbe11fd5e21ae0e318eae51af4e61efde725",
    },
    ColorScale {
        name: "magma",
        points:
            "00000402010903031106051a0a08220e0b2b130d33180f3d1d114622115028115a2f116336106a3d0f71430f764a107950127c\
            57147e5d177f631980691c816f1e817621817c23828226818928818f2a81952c809c2e7fa2307ea9327daf347bb63779bc3977\
            c33b75c93e72cf4170d6446ddb486ae14c66e65163ea5661ee5c5ef2635df5695cf7715cf9785dfa805efb8761fc8f64fd9668\
            fe9e6cfea571fead76feb47bfebb81fec387feca8dfed194fed99bfde0a2fde7a9fceeb0fcf6b8fcfdbf",
    },
    ColorScale {
        name: "plasma",
        points:
            "0d088719068b2206902a05933105963804993f049c46039f4c02a15302a35901a55f01a66600a76c00a87201a87801a87e03a8\
            8405a78909a68f0da49511a29a169f9f1a9ca41e99a92396ae2792b22c8eb7308bbb3587bf3983c33e80c7427ccb4778cf4b75\
            d25071d6546dd9596adc5e67e06263e36760e66c5ce87059eb7555ee7a52f07f4ff2844bf48a48f68f44f89441f99a3dfb9f3a\
            fca537fdab33fdb130feb72dfebd2afdc328fdca26fcd025fbd724f9dd25f7e426f5eb27f2f227f0f921",
    },
    ColorScale {
        name: "inferno",
        points:
            "00000402010a04031207051b0b072410092d150b371a0c40210c4a270b532e0a5a3609603c0965430a684a0c6b500e6c57106d\
            5d126e63146e6a176e70196e761b6d7d1e6d83206b89226a9024689627669c2964a32b61a92e5faf315cb53458bb3755c13a51\
            c63e4dcc4149d14644d64a40db4f3bdf5437e35932e75f2deb6528ee6b23f1711ef47819f67f14f8860ff98d0afa9407fb9c06\
            fca309fcab0ffcb217fbba1ffac228f9ca32f7d23df5d949f3e156f2e865f1ef75f3f586f6fa96fcffa4",
    },
    ColorScale {
        name: "cividis",
        points:
            "00224e00255400285b002b62002e6a0030700433711135701a386f213b6e273e6e2d416d32436d36466c3b496c3f4c6c434e6c\
            47516c4b546c4f576c52596d565c6d5a5f6e5d626e61656f646770686a716b6d726f70737273747576767978777c7b78807e78\
            8481798784788b87788f8a78938d789790779b93769f9676a39a75a79d74aba072afa371b3a670b7aa6ebbad6cbfb06bc3b469\
            c8b766ccba64d0be61d4c15fd9c55cddc958e1cc55e6d051ead44cefd748f4db42f8df3cfde334fee838",
    },
    ColorScale {
        name: "turbo",
        points:
            "30123b351e58392a733d358b4040a1424bb54456c74661d6466be34775ee467ff64589fc4293ff3d9dfe37a7fa30b1f429bbec\
            22c4e31dcdd819d5ce18dcc319e3b91ee8b026eda531f2993ef68c4cf97e5cfb716bfd647bfe588aff4d97fe43a3fd3cadfa38\
            b8f735c2f234cced34d5e635dee037e6d838edd03af3c83af8c03afbb738fdae35fea331fe982cfd8c27fb8022f9741df56817\
            f15d13ec520fe6490be04009d93807d23105ca2a04c02302b71d02ac1701a11101950d018808027a0403",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scale_has_all_its_points() {
        for scale in SCALES {
            assert_eq!(scale.points.len(), 65 * 6, "{}", scale.name);
            assert!(scale.points.bytes().all(|digit| digit.is_ascii_hexdigit()));
        }
        let viridis = ColorScale::named("Viridis").unwrap();
        assert_eq!(viridis.at(f64::NAN), viridis.at(-1.0));
        assert_eq!(viridis.at(7.0), viridis.at(1.0));
    }
}
