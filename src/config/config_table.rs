//! The macro that declares a table of the configuration, with its keys, types, defaults and documentation, once (see `schema`).

/// Declares a table of the configuration; see the module's text.
macro_rules! config_table {
    (
        $(#[doc = $about:literal])+
        $Table:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:ident : $Field:ty = $default:expr $(, only when $other:ident = $($value:literal)|+)? ;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub(super) struct $Table {
            /// Where the table begins.
            #[allow(dead_code, reason = "not every table has rules of its own")]
            pub place: Place,
            $( $(#[doc = $doc])+ pub $key: $Field, )+
        }

        impl Table for $Table {
            const KEYS: &'static [Key] = &[ $( Key {
                name: crate::config::schema::bare(stringify!($key)),
                default: $default,
                doc: concat!($($doc),+),
                only_when: config_table!(@when $($other $($value)+)?),
                kind: <$Field as Field>::kind,
                is_secret: <$Field as Field>::IS_SECRET,
            } ),+ ];

            fn read(section: &Section<'_>, report: &mut Report<'_>) -> Self {
                section.check_keys(Self::KEYS, report);
                let mut keys = Self::KEYS.iter();
                Self {
                    place: section.place.clone(),
                    // Fields are initialised in the order written, which is the order of KEYS.
                    $( $key: <$Field as Field>::read(
                        section, keys.next().expect("one key per field"), Self::KEYS, report) ),+
                }
            }
        }
    };
    (@when) => { None };
    (@when $other:ident $($value:literal)+) => {
        Some(OnlyWhen { key: crate::config::schema::bare(stringify!($other)), is: &[$($value),+] })
    };
}
pub(super) use config_table;
